/** Suggests a config for a compiled model and explains each key. */

import { bytesOf } from '../batchability/probe-inputs.js'
import { OPTIONS } from '../config/schema.js'
import type { SegmentHeader } from '../segment/layout.js'
import { requiredOf, type TensorSpec } from '../tensor.js'
import { formatBytes } from '../units.js'
import { MODEL_CONFIG_KEYS, type ModelConfigKey } from './config.js'

const MIB = 1024 * 1024
const MAX_ROWS = 64
/** Limit for the inputs and outputs of a full batch; intermediate tensors can be many times larger. */
const MAX_BATCH_BYTES = 64 * MIB
/** At least one request as large as `--max-body` allows. */
const MIN_QUEUE_BYTES = 64 * MIB
const MAX_QUEUE_BYTES = 256 * MIB
const MAX_CLASSES = 100_000

export interface SuggestedKey {
  readonly key: ModelConfigKey
  /** Null: the key is omitted. */
  readonly value: unknown
  /** The value as written, or the default that applies without it. */
  readonly valueText: string
  readonly does: string
  readonly change: string
}

/** Bytes of one row; null if a dimension other than the first is variable. */
function rowBytes(specs: readonly TensorSpec[]): number | null {
  const shapes = specs.map(({ shape }) => shape?.map((size, axis) => (axis === 0 && size === -1 ? 1 : size)))
  if (shapes.some((shape) => shape === undefined || shape.includes(-1))) return null
  const bytes = bytesOf(specs, shapes as number[][])
  return Number.isNaN(bytes) ? null : bytes
}

/** The largest power of two whose batch fits the limit. */
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

/** Outputs that may be class scores: a fixed number of elements per row. */
function classOutputs(outputs: readonly TensorSpec[]): string {
  return outputs
    .flatMap(({ name, shape }) => {
      const classes = shape !== null && shape.length >= 2 ? (shape.at(-1) as number) : 0
      return classes >= 2 && classes <= MAX_CLASSES ? [`${JSON.stringify(name)} (${classes})`] : []
    })
    .join(', ')
}

function remedyText({ preventedBy }: SegmentHeader['batching']): string {
  return preventedBy === undefined ? '' : ` Alternatively: ${preventedBy.remedy}.`
}

/** Every key of a model's config, in schema order. */
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
      does: `Batches rows of different requests if the model was found to be batchable. This model: ${batching.batchable ? 'yes' : 'no'}: ${batching.reason}.`,
      change: batching.batchable
        ? 'false, if results must be bitwise identical regardless of other requests.'
        : `true, only if rows are independent and every first dimension is the batch.${remedyText(batching)}`,
    },
    max_batch_size: {
      value: rows,
      does: `Maximum rows per batch.${batching.batchable ? '' : ' Not used while the model does not batch.'}`,
      change: `A lower value limits memory and the time spent waiting behind a batch${wholeBytes === null ? '' : `; a row's inputs and outputs take ${formatBytes(wholeBytes)}`}. The server determines the best size at runtime.`,
    },
    preferred_batch_sizes: {
      value: [],
      does: 'Batch sizes to prefer when enough rows are queued. Empty: the server determines them.',
      change: 'Set it for kernels optimised for certain sizes, such as [8, 16].',
    },
    max_queue_delay: {
      value: '0ms',
      does: 'How long a request waits for more rows while the worker is idle.',
      change: 'A few milliseconds, for many small requests that tolerate this latency.',
    },
    max_queue_requests: {
      value: queue.maxRequests,
      without: `--max-queue (${maxQueue})`,
      does: 'Queue capacity in requests per worker; further requests get 503.',
      change: `Lower it to the number of requests that a worker answers within the timeout of clients. Inputs of one row are ${rowText}.`,
    },
    max_queue_bytes: {
      value: `${queue.maxMib}MiB`,
      does: 'Queue capacity in input bytes per worker.',
      change:
        'Raise it for larger requests: a request above this size is always rejected. Lower it if memory is scarce.',
    },
    threads: {
      value: null,
      without: '--threads (1)',
      does: 'Threads per inference of this model.',
      change: 'Raise it for a large model with few concurrent requests; onecopy tune measures the effect.',
    },
    version_policy: {
      value: 'all',
      does: 'Serves every version of the model.',
      change: '{"latest": 1} or {"specific": ["1", "3"]}: fewer versions take less memory.',
    },
    warm_up: {
      value: 0,
      does: 'Runs before a worker reports the model as ready.',
      change: '1, or a list of sample requests, so that no client waits for the slow first run.',
    },
    labels: {
      value: {},
      does: 'Class names by output.',
      change:
        classes === ''
          ? 'No output has a fixed number of elements per row to name.'
          : `Names for the elements of ${classes}: a list, or a text file with one per line.`,
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

/** The config as file content. */
export function configText(keys: readonly SuggestedKey[]): string {
  const written = keys.filter(({ value }) => value !== null)
  return `${JSON.stringify(Object.fromEntries(written.map(({ key, value }) => [key, value])), null, 2)}\n`
}
