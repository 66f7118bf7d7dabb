/**
 * One trial: alternating ordinary and extreme rows, first run alone and then together.
 *
 * Each row is compared with itself at its own scale, because a large row would hide an influence on a small
 * one. Ordinary rows have similar scales, and their outputs must agree. For extreme rows rounding can have
 * any effect, and kernels for one row and for many round differently. So if such a row differs, it is run
 * again among copies of itself at the same position. The same kernel gives the same result there, and any
 * remaining difference comes from the other rows.
 */
import { messageOf } from '../errors.js'
import type { Tensor, TensorSpec } from '../tensor.js'
import { formatBytes, formatMs } from '../units.js'
import { extent, isSameShape, largestDifference, rowOf, toleranceOf } from './agreement.js'
import { EXTREME_KINDS, extremeRow } from './extreme-rows.js'
import {
  bytesOf,
  type IndexLimits,
  joinRows,
  probeRandom,
  type Row,
  rowShape,
  rowSource,
  type Trial,
} from './probe-inputs.js'

/**
 * Batch sizes. 17 exceeds the common widths of vector kernels and reveals windows of up to 16 rows over time.
 */
const JOINT_SIZES = [2, 3, 8, 17]
/** If rows differ by less than this multiple of the tolerance, an influence could not be detected. */
const SHOWING_TOLERANCES = 10
/** Limit for inputs and outputs of one trial run; intermediate tensors can be many times larger. */
const MAX_RUN_BYTES = 64 * 1024 * 1024

export interface TrialOptions {
  /** Inputs that the loaded graph requires, each with a variable first dimension. */
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Runs the loaded model once; rejects if the runtime rejects the inputs. */
  readonly run: (inputs: readonly Tensor[], outputNames: readonly string[]) => Promise<Tensor[]>
  readonly trial: Trial
  /** The round of extreme rows; see extreme-rows.ts. */
  readonly round: number
  readonly indexLimits: IndexLimits
  readonly seed: number
  /** In the time of `performance.now()`. */
  readonly deadlineMs: number
}

interface AloneRow {
  readonly row: Row
  readonly isExtreme: boolean
  /** By output. */
  readonly outputs: readonly Tensor[]
}

/** Rows run one by one, as the reference for joint runs. */
interface Alone {
  readonly kind: 'alone'
  readonly rows: readonly AloneRow[]
  readonly sizes: readonly number[]
  /** Why some sizes are not tried. */
  readonly limit: string | null
}

type Refused = { readonly kind: 'refused'; readonly words: string }
type Different = { readonly kind: 'different'; readonly reason: string }
export type Agreed = {
  readonly kind: 'agreed'
  readonly sizes: readonly number[]
  readonly limit: string | null
  /** Outputs whose rows differ enough to detect an influence. */
  readonly shown: readonly string[]
}

function quoted(name: string): string {
  return JSON.stringify(name)
}

function refused(words: string): Refused {
  return { kind: 'refused', words }
}

function different(reason: string): Different {
  return { kind: 'different', reason }
}

function by(difference: number): string {
  return Number.isFinite(difference) ? ` by ${Number(difference.toPrecision(2))}` : ''
}

/**
 * The sizes that fit the memory limit and the remaining time, judged by one row. The smallest is used
 * regardless of time.
 */
function affordableSizes(
  row: { readonly ms: number; readonly bytes: number },
  leftMs: number,
): { sizes: number[]; limit: string | null } {
  const sizes = JOINT_SIZES.filter((size) => size * row.bytes <= MAX_RUN_BYTES)
  let limit = sizes.length < JOINT_SIZES.length ? `one row takes ${formatBytes(row.bytes)}` : null
  while (sizes.length > 1) {
    const largest = sizes.at(-1) as number
    // Each row alone, every size once, and the largest again in another order.
    if ((2 * largest + sizes.reduce((sum, size) => sum + size, 0)) * row.ms <= leftMs) break
    sizes.pop()
    limit = `one row takes ${formatMs(row.ms)}`
  }
  return { sizes, limit }
}

/** The difference between two runs of the same row. */
function randomness(first: readonly Tensor[], again: readonly Tensor[]): string | null {
  for (const [i, tensor] of again.entries()) {
    const before = first[i] as Tensor
    const difference = isSameShape(tensor.shape, before.shape)
      ? largestDifference(tensor, [before], toleranceOf(tensor, extent([before]).scale))
      : Number.POSITIVE_INFINITY
    if (difference !== null)
      return `output ${quoted(tensor.name)} of one row run twice differs${by(difference)}`
  }
  return null
}

function namesOf({ outputs }: TrialOptions): string[] {
  return outputs.map(({ name }) => name)
}

/**
 * Every other row is extreme. An extreme row that the model rejects when run alone says nothing about batches
 * and is replaced by an ordinary one.
 */
async function runAlone(options: TrialOptions): Promise<Alone | Refused | Different> {
  const { inputs, outputs, trial, round, indexLimits, deadlineMs, run } = options
  const names = namesOf(options)
  const shapes = inputs.map((spec) => rowShape(spec, trial.dimension))
  const inputBytes = bytesOf(inputs, shapes)
  // Negated to handle NaN, the result of counts beyond 2^53.
  if (!(inputBytes <= MAX_RUN_BYTES)) return refused('one row is too large for a trial')
  const random = probeRandom(options.seed)
  const rowOptions = { trial, indexLimits, random }
  const nextOrdinary = rowSource(inputs, rowOptions)
  const ordinary = async (row = nextOrdinary()): Promise<AloneRow> => ({
    ...{ row, isExtreme: false },
    outputs: await run(row, names),
  })
  try {
    const first = await ordinary()
    if (performance.now() > deadlineMs) return refused('one row takes too long for a trial')
    const unlike = first.outputs.find(({ shape }) => shape[0] !== 1)
    if (unlike !== undefined) {
      return different(`output ${quoted(unlike.name)} has shape [${unlike.shape}] for one row`)
    }
    const startedMs = performance.now()
    const chance = randomness(first.outputs, (await ordinary(first.row)).outputs)
    const endedMs = performance.now()
    if (chance !== null) return different(`the model is random: ${chance}`)
    const outputBytes = bytesOf(
      outputs,
      first.outputs.map(({ shape }) => shape),
    )
    const cost = { ms: endedMs - startedMs, bytes: inputBytes + outputBytes }
    const { sizes, limit } = affordableSizes(cost, deadlineMs - endedMs)
    const largest = sizes.at(-1)
    if (largest === undefined) return refused(`two rows take more than ${formatBytes(MAX_RUN_BYTES)}`)
    const rows = [first]
    while (rows.length < largest) {
      const kind = (rows.length - 1) / 2
      const row = Number.isInteger(kind)
        ? extremeRow(inputs, { ...rowOptions, round, kind: kind % EXTREME_KINDS })
        : null
      const answer = row && (await run(row, names).catch(() => null))
      rows.push(
        row !== null && answer !== null ? { row, isExtreme: true, outputs: answer } : await ordinary(),
      )
    }
    return { kind: 'alone', rows, sizes, limit }
  } catch (thrown) {
    return refused(messageOf(thrown))
  }
}

/** A row that differs between the joint run and the run alone, with the first output that differs. */
interface Disagreement {
  readonly place: number
  readonly output: string
  readonly difference: number
}

interface Comparison {
  readonly names: readonly string[]
  /** The magnitude of each output over the ordinary rows. */
  readonly scales: readonly number[]
}

function shapeProblem(together: readonly Tensor[], rows: readonly AloneRow[]): string | null {
  for (const [i, { name, shape }] of together.entries()) {
    const [, ...rest] = rows[0]?.outputs[i]?.shape ?? []
    const expected = [rows.length, ...rest]
    if (!isSameShape(shape, expected))
      return `output ${quoted(name)} has shape [${shape}] for ${rows.length} rows, expected [${expected}]`
  }
  return null
}

function* disagreements(
  together: readonly Tensor[],
  rows: readonly AloneRow[],
  { names, scales }: Comparison,
): Generator<Disagreement> {
  for (const [place, { outputs, isExtreme }] of rows.entries()) {
    for (const [i, joint] of together.entries()) {
      const single = outputs[i] as Tensor
      const scale = isExtreme ? extent([single]).scale : (scales[i] as number)
      const difference = largestDifference(rowOf(joint, place), [single], toleranceOf(joint, scale))
      if (difference === null) continue
      yield { place, output: names[i] as string, difference }
      break
    }
  }
}

/**
 * The difference between a row among other rows and the same row among copies of itself; null if there is
 * none.
 */
async function influenceOn(
  place: number,
  together: readonly Tensor[],
  { rows, options }: { readonly rows: readonly AloneRow[]; readonly options: TrialOptions },
): Promise<number | null> {
  const copies = await options.run(joinRows(rows.map(() => (rows[place] as AloneRow).row)), namesOf(options))
  for (const [i, joint] of together.entries()) {
    const copy = copies[i] as Tensor
    if (!isSameShape(copy.shape, joint.shape)) return Number.POSITIVE_INFINITY
    const among = rowOf(copy, place)
    const tolerance = toleranceOf(joint, extent([among]).scale)
    const difference = largestDifference(rowOf(joint, place), [among], tolerance)
    if (difference !== null) return difference
  }
  return null
}

/** Runs rows together and compares each with its run alone; returns the problem, or null. */
async function runJointly(
  rows: readonly AloneRow[],
  options: TrialOptions,
  comparison: Comparison,
): Promise<string | null> {
  let together: Tensor[]
  try {
    together = await options.run(joinRows(rows.map(({ row }) => row)), namesOf(options))
  } catch (thrown) {
    return `rows run alone, but ${rows.length} rows together do not: ${messageOf(thrown)}`
  }
  const problem = shapeProblem(together, rows)
  if (problem !== null) return problem
  for (const { place, output, difference } of disagreements(together, rows, comparison)) {
    const words = `rows influence each other: output ${quoted(output)} differs`
    if (rows[place]?.isExtreme !== true) return `${words}${by(difference)}`
    try {
      if ((await influenceOn(place, together, { rows, options })) !== null) return `${words}${by(difference)}`
    } catch (thrown) {
      return `one row runs alone, but ${rows.length} copies together do not: ${messageOf(thrown)}`
    }
  }
  return null
}

async function runTogether(options: TrialOptions, alone: Alone): Promise<Agreed | Different> {
  const { outputs, deadlineMs } = options
  const { rows, sizes, limit } = alone
  const names = namesOf(options)
  for (const [i, name] of names.entries()) {
    const shapes = rows.map((one) => one.outputs[i]?.shape ?? [])
    if (shapes.some((shape) => !isSameShape(shape, shapes[0] ?? [])))
      return different(`the shape of output ${quoted(name)} depends on the values of a row`)
  }
  const ordinary = rows.filter(({ isExtreme }) => !isExtreme)
  const extentsOf = (some: readonly AloneRow[]) =>
    names.map((_, i) => extent(some.map((one) => one.outputs[i] as Tensor)))
  const extents = extentsOf(ordinary)
  const scales = extents.map(({ scale }) => scale)

  const inOrder = [...rows]
  // The last rows first, so that a row has another position in every size.
  for (const order of [...sizes.map((size) => inOrder.slice(-size)), inOrder.toReversed()]) {
    const isExtra = order[0] !== rows[0] && order.length === rows.length
    if (isExtra && performance.now() > deadlineMs) break
    const problem = await runJointly(order, options, { names, scales })
    if (problem !== null) return different(problem)
  }
  // A slow model is tried with only one ordinary row.
  const showing = ordinary.length > 1 ? extents : extentsOf(rows)
  const shown = names.filter((_, i) => {
    const { scale, spread } = showing[i] as { scale: number; spread: number }
    return spread > 0 && spread >= SHOWING_TOLERANCES * toleranceOf(outputs[i] as TensorSpec, scale)
  })
  return { kind: 'agreed', sizes, limit, shown }
}

/** Runs rows alone and together; `refused` if the model does not run ordinary rows of this kind. */
export async function runTrial(options: TrialOptions): Promise<Agreed | Refused | Different> {
  const alone = await runAlone(options)
  return alone.kind === 'alone' ? await runTogether(options, alone) : alone
}
