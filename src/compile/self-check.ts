/**
 * The self-check: at compile time the image runs on generated inputs, and the first elements of the outputs
 * are stored in the header. Every worker repeats the run after loading the model. That warms it up, and a
 * worker rejects a model whose outputs differ.
 */

import { extent, isSameShape, largestDifference, toleranceOf } from '../batchability/agreement.js'
import {
  bytesOf,
  probeRandom,
  smallestShape,
  type Trial,
  trialElements,
  VOCABULARIES,
} from '../batchability/probe-inputs.js'
import { OnecopyError } from '../errors.js'
import {
  MAX_SELF_CHECK_ELEMENTS,
  MAX_SELF_CHECK_OUTPUTS,
  SELF_CHECK_ROOM_BYTES,
  type SelfCheck,
} from '../segment/layout.js'
import { DATATYPES, elementCount, type Tensor, type TensorSpec } from '../tensor.js'

const SEED = 17
/** Sizes of variable dimensions, tried until the model runs; the first dimension is 1. */
const DIMENSIONS = [1, 8, 32, 64, 224]
const RANGE = [-1, 1] as const
const MAX_TEXT = 64
const MAX_INPUT_BYTES = 16 * 1024 * 1024
/** A model that takes longer for one row would delay every worker start. */
const MAX_RUN_MS = 500

type RunModel = (inputs: readonly Tensor[], outputNames: readonly string[]) => Promise<readonly Tensor[]>

export interface SelfCheckOptions {
  /** Inputs that the loaded graph requires. */
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  readonly run: RunModel
}

function inputsOf(specs: readonly TensorSpec[], dimension: number, vocabulary: number): Tensor[] | null {
  const words = VOCABULARIES[vocabulary]
  if (words === undefined) return null
  const trial: Trial = { dimension, vocabulary: words, range: RANGE }
  const random = probeRandom(SEED)
  const shapes = specs.map((spec) => smallestShape(spec, dimension))
  if (!(bytesOf(specs, shapes) <= MAX_INPUT_BYTES)) return null
  return specs.map(({ name, datatype }, i) => {
    const shape = shapes[i] as number[]
    return { name, datatype, shape, data: trialElements(datatype, elementCount(shape), trial, random) }
  })
}

function writable(value: number | bigint | string): number | string {
  if (typeof value === 'string') return value.slice(0, MAX_TEXT)
  return typeof value === 'bigint' || !Number.isFinite(value) ? String(value) : value
}

function beginningOf({ name, shape, data }: Tensor): SelfCheck['outputs'][number] {
  return { name, shape: [...shape], elements: Array.from(data.slice(0, MAX_SELF_CHECK_ELEMENTS), writable) }
}

function namesOf(outputs: readonly TensorSpec[]): string[] {
  return outputs.slice(0, MAX_SELF_CHECK_OUTPUTS).map(({ name }) => name)
}

/** How the outputs differ; null if they agree within the rounding tolerance of the datatype. */
function difference(expected: SelfCheck['outputs'][number], got: Tensor): string | null {
  if (!isSameShape(expected.shape, got.shape)) return `shape [${got.shape}] instead of [${expected.shape}]`
  const { datatype } = got
  const count = expected.elements.length
  if (datatype === 'BYTES') {
    const isSame = expected.elements.every((text, i) => writable(got.data[i] as string) === text)
    return isSame ? null : 'other text'
  }
  const wanted = new DATATYPES[datatype].storage(count)
  const isWide = wanted instanceof BigInt64Array || wanted instanceof BigUint64Array
  expected.elements.forEach((value, i) => {
    wanted[i] = (isWide ? BigInt(value) : Number(value)) as never
  })
  const tensor = (data: Tensor['data']): Tensor => ({ name: got.name, datatype, shape: [count], data })
  const { scale } = extent([tensor(wanted)])
  const beginning = tensor(got.data.slice(0, count) as Tensor['data'])
  const largest = largestDifference(beginning, [tensor(wanted)], toleranceOf(got, scale))
  return largest === null ? null : `values that differ by ${largest}`
}

/**
 * Finds inputs for which the loaded model gives the same outputs twice, and records them; null if there are
 * none or one row takes too long.
 */
export async function recordSelfCheck({ inputs, outputs, run }: SelfCheckOptions): Promise<SelfCheck | null> {
  const outputNames = namesOf(outputs)
  const isVariable = inputs.some(({ shape }) => shape?.slice(1).includes(-1))
  for (const dimension of isVariable ? DIMENSIONS : DIMENSIONS.slice(0, 1)) {
    for (const vocabulary of VOCABULARIES.keys()) {
      const feed = () => inputsOf(inputs, dimension, vocabulary)
      const first = feed()
      if (first === null) return null
      const startedMs = performance.now()
      const answer = await run(first, outputNames).catch(() => null)
      if (performance.now() - startedMs > MAX_RUN_MS) return null
      if (answer === null) continue
      const again = await run(feed() ?? [], outputNames).catch(() => null)
      const check = { dimension, vocabulary, outputs: answer.map(beginningOf) }
      const isSteady =
        again !== null &&
        check.outputs.every((expected, i) => difference(expected, again[i] as Tensor) === null)
      const fits = Buffer.byteLength(JSON.stringify(check)) <= SELF_CHECK_ROOM_BYTES
      return isSteady && fits ? check : null
    }
  }
  return null
}

/**
 * Repeats the recorded run and compares the outputs.
 * @throws OnecopyError SELF_CHECK_FAILED naming the output and the difference.
 */
export async function checkSelf(check: SelfCheck, { inputs, outputs, run }: SelfCheckOptions): Promise<void> {
  const feed = inputsOf(inputs, check.dimension, check.vocabulary)
  if (feed === null)
    throw new OnecopyError('SELF_CHECK_FAILED', 'the recorded inputs cannot be generated again')
  const answer = await run(feed, namesOf(outputs))
  for (const [i, expected] of check.outputs.entries()) {
    const got = answer[i]
    const how = got === undefined ? 'nothing' : difference(expected, got)
    if (how !== null) {
      throw new OnecopyError(
        'SELF_CHECK_FAILED',
        `output ${JSON.stringify(expected.name)} of the self-check: expected the output recorded at compile time, got ${how}`,
      )
    }
  }
}
