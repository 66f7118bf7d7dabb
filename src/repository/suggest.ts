/** A config made from what is known of a model, and a word on each of its keys. */

import { bytesOf } from '../batchability/probe-inputs.js'
import { OPTIONS } from '../config/schema.js'
import type { SegmentHeader } from '../segment/layout.js'
import { requiredOf, type TensorSpec } from '../tensor.js'
import { formatBytes } from '../units.js'
import { MODEL_CONFIG_KEYS, type ModelConfigKey } from './config.js'

const MIB = 1024 * 1024
const MAX_ROWS = 64
/** Inputs and outputs of a full batch: what lies between them in the model can be many times more. */
const MAX_BATCH_BYTES = 64 * MIB
/** At least a request as large as `--max-body` allows. */
const MIN_QUEUE_BYTES = 64 * MIB
const MAX_QUEUE_BYTES = 256 * MIB
const MAX_CLASSES = 100_000

export interface SuggestedKey {
  readonly key: ModelConfigKey
  /** Null where the key is left out. */
  readonly value: unknown
  /** The value as it is written, or what holds without it. */
  readonly valueText: string
  readonly does: string
  readonly change: string
}

/** Bytes of one row, or null where more than the first dimension is variable. */
function rowBytes(specs: readonly TensorSpec[]): number | null {
  const shapes = specs.map(({ shape }) => shape?.map((size, axis) => (axis === 0 && size === -1 ? 1 : size)))
  if (shapes.some((shape) => shape === undefined || shape.includes(-1))) return null
  const bytes = bytesOf(specs, shapes as number[][])
  return Number.isNaN(bytes) ? null : bytes
}

/** The largest power of two whose batch is affordable. */
function rowsFor(bytes: number | null): number {
  let rows = MAX_ROWS
  while (bytes !== null && rows > 1 && rows * bytes > MAX_BATCH_BYTES) rows /= 2
  return rows
}

interface Queue {
  readonly maxRequests: number | null
  readonly maxMib: number
}

function queueFor(inputBytes: number | null, rowsTogether: number): Queue {
  if (inputBytes === null) return { maxRequests: null, maxMib: MAX_QUEUE_BYTES / MIB }
  const maxQueue = Number(OPTIONS.maxQueue.default())
  const wanted = maxQueue * rowsTogether * inputBytes
  const bytes = Math.max(2 * inputBytes, Math.min(MAX_QUEUE_BYTES, Math.max(MIN_QUEUE_BYTES, wanted)))
  const maxMib = Math.ceil(bytes / MIB)
  const fitting = Math.floor((maxMib * MIB) / Math.max(1, inputBytes))
  return { maxRequests: fitting < maxQueue ? fitting : null, maxMib }
}

/** Outputs that may be classes: a fixed number of elements a row. */
function classOutputs(outputs: readonly TensorSpec[]): string {
  return outputs
    .flatMap(({ name, shape }) => {
      const classes = shape !== null && shape.length >= 2 ? (shape.at(-1) as number) : 0
      return classes >= 2 && classes <= MAX_CLASSES ? [`${JSON.stringify(name)} (${classes})`] : []
    })
    .join(', ')
}

function remedyText({ preventedBy }: SegmentHeader['batching']): string {
  return preventedBy === undefined ? '' : ` Better: ${preventedBy.remedy}.`
}

/** Every key of a model's config, in the schema's order. */
export function suggestConfig(header: SegmentHeader): SuggestedKey[] {
  const { outputs, batching } = header
  const inputs = requiredOf(header.inputs)
  const inputBytes = rowBytes(inputs)
  const wholeBytes = rowBytes([...inputs, ...outputs])
  const rows = rowsFor(wholeBytes)
  const queue = queueFor(inputBytes, batching.batchable ? rows : 1)
  const rowText = inputBytes === null ? 'of unknown size (variable shapes)' : `of ${formatBytes(inputBytes)}`
  const classes = classOutputs(outputs)
  const maxQueue = OPTIONS.maxQueue.default()
  const suggested: Record<ModelConfigKey, Omit<SuggestedKey, 'key' | 'valueText'> & { without?: string }> = {
    batching: {
      value: 'auto',
      does: `Computes rows of different requests together where that was found to be right. Here ${batching.batchable ? 'yes' : 'no'}: ${batching.reason}.`,
      change: batching.batchable
        ? 'false, where answers must be the same to the last bit whatever else is asked.'
        : `true, only if rows do not influence each other and every first dimension is the batch.${remedyText(batching)}`,
    },
    max_batch_size: {
      value: rows,
      does: `Rows computed together, at most.${batching.batchable ? '' : ' Not used while the model does not batch.'}`,
      change: `Less bounds memory and the wait behind a batch${wholeBytes === null ? '' : `; a row's inputs and outputs take ${formatBytes(wholeBytes)}`}. The server learns by itself what pays.`,
    },
    preferred_batch_sizes: {
      value: [],
      does: 'Sizes to prefer where enough rows wait. None: the server learns them.',
      change: 'Where kernels were made for certain sizes, such as [8, 16].',
    },
    max_queue_delay: {
      value: '0ms',
      does: 'How long a request waits for company while the worker is idle.',
      change: 'A few milliseconds, where many small requests come and each may be late by so much.',
    },
    max_queue_requests: {
      value: queue.maxRequests,
      without: `--max-queue (${maxQueue})`,
      does: 'Requests that may wait, per worker; more are 503.',
      change: `Lower it to the requests that a worker answers within a caller's patience. Inputs of one row are ${rowText}.`,
    },
    max_queue_bytes: {
      value: `${queue.maxMib}MiB`,
      does: 'Bytes of inputs that may wait, per worker.',
      change: 'Up for larger requests: one that alone is larger is never taken. Down where memory is short.',
    },
    threads: {
      value: null,
      without: '--threads (1)',
      does: 'Threads inside one inference of this model.',
      change: 'More for a large model that few ask for at once; onecopy tune measures it.',
    },
    version_policy: {
      value: 'all',
      does: 'Serves every version beside the config.',
      change: '{"latest": 1} or {"specific": ["1", "3"]}: fewer versions take less memory.',
    },
    warm_up: {
      value: 0,
      does: 'Runs before a worker says that the model is ready.',
      change: '1, or a list of sample requests, so that no caller pays for the first run.',
    },
    labels: {
      value: {},
      does: 'Names of the classes, by output.',
      change:
        classes === ''
          ? 'No output has a fixed number of elements a row to name.'
          : `Names for the elements of ${classes}: a list, or a text file with one a line.`,
    },
    text: {
      value: null,
      without: "the model's own files",
      does: 'How a text model (a folder with tokenizer.json) is served: task, file, pooling, longest length.',
      change: 'Where its files do not say, or say something else. Not for other models.',
    },
  }
  return MODEL_CONFIG_KEYS.map((key) => {
    const { without, ...word } = suggested[key]
    const isLeftOut = word.value === null
    return { key, ...word, valueText: isLeftOut ? `(${without})` : JSON.stringify(word.value) }
  })
}

/** The config as a file. */
export function configText(keys: readonly SuggestedKey[]): string {
  const written = keys.filter(({ value }) => value !== null)
  return `${JSON.stringify(Object.fromEntries(written.map(({ key, value }) => [key, value])), null, 2)}\n`
}
