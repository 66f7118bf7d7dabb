/**
 * Whether requests of a model may be gathered along the first dimension: found out, not assumed.
 *
 * Shapes say which models are candidates. They cannot say which may be batched: a first dimension can as
 * well be time, and a model can normalise, sort or quantise over it. Gathering such requests would give
 * each caller an answer that depends on the others, silently. So the compiled graph must prove that rows stay
 * apart (proof/prove.ts), and what is proven is tried: the same synthetic rows run alone and together, and
 * whatever is not shown to agree is not batched. A wrong "no" costs speed, a wrong "yes" costs correctness:
 * doubt counts as no.
 */
import { messageOf } from '../errors.js'
import { type Batching, MAX_BATCHING_REASON_CHARACTERS, MAX_NODE_CHARACTERS } from '../segment/layout.js'
import type { Tensor, TensorSpec } from '../tensor.js'
import { formatBytes, formatMs } from '../units.js'
import { extent, isFloat, isSameShape, largestDifference, toleranceOf } from './agreement.js'
import type { Cause } from './proof/values.js'
import { bytesOf, joinRows, type Row, rowShape, rowSource, type Trial, VOCABULARIES } from './trial-rows.js'

/** Rows run together. 17 is beyond the common widths of vector kernels and shows windows of up to 16 rows over time. */
const JOINT_SIZES = [2, 3, 8, 17]
/** Sizes tried for the other variable dimensions until rows run and show in every output. */
const TRIAL_DIMENSIONS = [8, 16, 1, 32, 64, 224]
/** Ranges of floats: one for most models, one where activations saturate, one for roots and logarithms. */
const FLOAT_RANGES = [
  [-1, 1],
  [-10, 10],
  [0, 1],
] as const
/** Rows whose outputs differ by less than this many tolerances would hide an influence: they show nothing. */
const SHOWING_TOLERANCES = 10

const DEFAULT_BUDGET_MS = 5000
/** Inputs and outputs of one trial run; what lies between them in the model can be many times more. */
const MAX_RUN_BYTES = 64 * 1024 * 1024
const SEED = 0x0c09

function quoted(name: string): string {
  return JSON.stringify(name)
}

function clipped(text: string, characters: number): string {
  return text.length > characters ? `${text.slice(0, characters - 3)}...` : text
}

export function batchingResult(batchable: boolean, reason: string): Batching {
  return { batchable, reason: clipped(reason, MAX_BATCHING_REASON_CHARACTERS) }
}

/** Why a graph is not proven to keep rows apart. */
export function notProven({ node, operator, reason, remedy }: Cause): Batching {
  const name = clipped(node, MAX_NODE_CHARACTERS)
  const where = ['input', 'output', 'value'].includes(operator)
    ? `${operator} ${quoted(name)}`
    : `node ${quoted(name)} (${operator})`
  return {
    ...batchingResult(false, `${where} ${reason}`),
    preventedBy: {
      node: name,
      operator: clipped(operator, MAX_NODE_CHARACTERS),
      remedy: clipped(remedy, MAX_BATCHING_REASON_CHARACTERS),
    },
  }
}

/**
 * What speaks against batching in the declared shapes, or null for a candidate: every input and served
 * output must have a variable first dimension, and inputs must not call it by different names. Names of
 * outputs are left to the probe, because exporters invent them.
 */
export function shapesAgainstBatching(options: {
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Names of the inputs' dimensions ('' for none), by input. */
  readonly dimensionNames: ReadonlyMap<string, readonly string[]>
}): string | null {
  const { inputs, outputs, dimensionNames } = options
  if (inputs.length === 0) return 'the model has no inputs'
  const sides = [
    ...inputs.map((spec) => ['input', spec] as const),
    ...outputs.map((spec) => ['output', spec] as const),
  ]
  for (const [role, { name, shape }] of sides) {
    if (shape === null) return `${role} ${quoted(name)} declares no shape`
    if (shape.length === 0) return `${role} ${quoted(name)} is a scalar`
    if (shape[0] !== -1) return `${role} ${quoted(name)} has a fixed first dimension (${shape[0]})`
  }
  const firsts = new Set(
    inputs.map(({ name }) => dimensionNames.get(name)?.[0] ?? '').filter((name) => name !== ''),
  )
  if (firsts.size > 1) return `the inputs' first dimensions have different names (${[...firsts].join(', ')})`
  for (const { name } of inputs) {
    const again = dimensionNames
      .get(name)
      ?.slice(1)
      .find((dimension) => firsts.has(dimension))
    if (again !== undefined) return `a later dimension of input ${quoted(name)} is ${quoted(again)} too`
  }
  return null
}

/** Rows run one by one: what the joint runs are held against. */
interface Alone {
  readonly kind: 'alone'
  readonly rows: readonly Row[]
  /** By output, then by row. */
  readonly outputs: readonly (readonly Tensor[])[]
  readonly sizes: readonly number[]
  /** Why not all sizes are tried. */
  readonly limit: string | null
}

type Refused = { readonly kind: 'refused'; readonly words: string }
type Different = { readonly kind: 'different'; readonly reason: string }
type Agreed = {
  readonly kind: 'agreed'
  readonly sizes: readonly number[]
  readonly limit: string | null
  /** Outputs whose rows are far enough apart to show an influence. */
  readonly shown: readonly string[]
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

/** The sizes that fit the memory and the time left, judged by one row; the smallest whatever the time. */
function affordableSizes(
  row: { readonly ms: number; readonly bytes: number },
  leftMs: number,
): { sizes: number[]; limit: string | null } {
  const sizes = JOINT_SIZES.filter((size) => size * row.bytes <= MAX_RUN_BYTES)
  let limit = sizes.length < JOINT_SIZES.length ? `one row takes ${formatBytes(row.bytes)}` : null
  while (sizes.length > 1) {
    const largest = sizes.at(-1) as number
    // Each row alone, every size once, the largest once more in another order.
    if ((2 * largest + sizes.reduce((sum, size) => sum + size, 0)) * row.ms <= leftMs) break
    sizes.pop()
    limit = `one row takes ${formatMs(row.ms)}`
  }
  return { sizes, limit }
}

/** What differs when the same row runs twice. */
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

async function runAlone(options: TrialOptions): Promise<Alone | Refused | Different> {
  const { inputs, outputs, trial, deadlineMs, run } = options
  const names = outputs.map(({ name }) => name)
  const shapes = inputs.map((spec) => rowShape(spec, trial.dimension))
  const inputBytes = bytesOf(inputs, shapes)
  // Negated for NaN, which counts beyond 2^53 give.
  if (!(inputBytes <= MAX_RUN_BYTES)) return refused('one row is too large for a trial')
  const nextRow = rowSource(inputs, trial, options.seed)
  const rows: Row[] = [nextRow()]
  try {
    const first = await run(rows[0] as Row, names)
    if (performance.now() > deadlineMs) return refused('one row takes too long for a trial')
    const unlike = first.find(({ shape }) => shape[0] !== 1)
    if (unlike !== undefined) {
      return different(`output ${quoted(unlike.name)} has shape [${unlike.shape}] for one row`)
    }
    const startedMs = performance.now()
    const random = randomness(first, await run(rows[0] as Row, names))
    const endedMs = performance.now()
    if (random !== null) return different(`the model is random: ${random}`)
    const outputBytes = bytesOf(
      outputs,
      first.map(({ shape }) => shape),
    )
    const row = { ms: endedMs - startedMs, bytes: inputBytes + outputBytes }
    const { sizes, limit } = affordableSizes(row, deadlineMs - endedMs)
    const largest = sizes.at(-1)
    if (largest === undefined) return refused(`two rows take more than ${formatBytes(MAX_RUN_BYTES)}`)
    const results = [first]
    while (rows.length < largest) {
      const next = nextRow()
      rows.push(next)
      results.push(await run(next, names))
    }
    const byOutput = names.map((_, i) => results.map((tensors) => tensors[i] as Tensor))
    return { kind: 'alone', rows, outputs: byOutput, sizes, limit }
  } catch (thrown) {
    return refused(messageOf(thrown))
  }
}

async function runTogether(options: TrialOptions, alone: Alone): Promise<Agreed | Different> {
  const { outputs, deadlineMs, run } = options
  const { rows, sizes, limit } = alone
  const names = outputs.map(({ name }) => name)
  for (const tensors of alone.outputs) {
    const [{ name, shape }] = tensors as [Tensor]
    if (tensors.some((tensor) => !isSameShape(tensor.shape, shape))) {
      return different(`the shape of output ${quoted(name)} depends on the values of a row`)
    }
  }
  const extents = alone.outputs.map(extent)
  const tolerances = outputs.map((spec, i) => toleranceOf(spec, extents[i]?.scale ?? 0))

  const inOrder = rows.map((_, row) => row)
  // The last rows first, so that a row stands at another place in every size.
  for (const order of [...sizes.map((size) => inOrder.slice(-size)), inOrder.toReversed()]) {
    const isExtra = order[0] !== 0 && order.length === rows.length
    if (isExtra && performance.now() > deadlineMs) break
    const request = joinRows(order.map((row) => rows[row] as Row))
    let together: Tensor[]
    try {
      together = await run(request, names)
    } catch (thrown) {
      return different(`rows run alone, ${order.length} together do not: ${messageOf(thrown)}`)
    }
    for (const [i, tensor] of together.entries()) {
      const singles = order.map((row) => alone.outputs[i]?.[row] as Tensor)
      const expected = [order.length, ...(singles[0] as Tensor).shape.slice(1)]
      if (!isSameShape(tensor.shape, expected)) {
        return different(
          `output ${quoted(tensor.name)} has shape [${tensor.shape}] for ${order.length} rows, expected [${expected}]`,
        )
      }
      const difference = largestDifference(tensor, singles, tolerances[i] as number)
      if (difference !== null) {
        return different(`rows influence each other: output ${quoted(tensor.name)} differs${by(difference)}`)
      }
    }
  }
  const shown = names.filter((_, i) => {
    const spread = extents[i]?.spread ?? 0
    return spread > 0 && spread >= SHOWING_TOLERANCES * (tolerances[i] as number)
  })
  return { kind: 'agreed', sizes, limit, shown }
}

export interface ProbeOptions {
  /** Inputs that the loaded graph asks for, each with a variable first dimension. */
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Runs the loaded model once; rejects where the runtime refuses the inputs. */
  readonly run: (inputs: readonly Tensor[], outputNames: readonly string[]) => Promise<Tensor[]>
  /** Time after which no run is started that can be left out; a single run is never cut off. */
  readonly budgetMs?: number
}

interface TrialOptions extends ProbeOptions {
  readonly trial: Trial
  readonly seed: number
  /** On the clock of `performance.now()`. */
  readonly deadlineMs: number
}

/** What is tried until rows run and every output shows them, in order. */
function settingsFor(inputs: readonly TensorSpec[]): Omit<Trial, 'range'>[] {
  const isVariable = inputs.some(({ shape }) => shape?.slice(1).includes(-1))
  const hasVocabulary = inputs.some((spec) => !isFloat(spec) && spec.datatype !== 'BOOL')
  return TRIAL_DIMENSIONS.slice(0, isVariable ? undefined : 1).flatMap((dimension) =>
    VOCABULARIES.slice(0, hasVocabulary ? undefined : 1).map((vocabulary) => ({ dimension, vocabulary })),
  )
}

/**
 * Runs synthetic rows alone and together and says whether they agree. Never rejects: a model that cannot
 * be probed is not batched.
 */
export async function probeBatching(options: ProbeOptions): Promise<Batching> {
  const { inputs, outputs, budgetMs = DEFAULT_BUDGET_MS } = options
  const deadlineMs = performance.now() + budgetMs
  let refusal: string | null = null
  let best: Agreed | null = null
  let lastRoundMs = 0
  const shown = new Set<string>()
  // Labels may come out the same for every row; the floats that they are made of may not.
  const muteOutput = () => outputs.find((spec) => isFloat(spec) && !shown.has(spec.name))
  settings: for (const setting of settingsFor(inputs)) {
    for (const [round, range] of FLOAT_RANGES.entries()) {
      const startedMs = performance.now()
      if (startedMs + lastRoundMs > deadlineMs) break settings
      const trial = { ...options, trial: { ...setting, range }, seed: SEED + round, deadlineMs }
      const alone = await runAlone(trial)
      const outcome = alone.kind === 'alone' ? await runTogether(trial, alone) : alone
      if (outcome.kind === 'different') return batchingResult(false, outcome.reason)
      if (outcome.kind === 'refused') {
        refusal ??= outcome.words
        continue
      }
      lastRoundMs = performance.now() - startedMs
      best ??= outcome
      for (const name of outcome.shown) shown.add(name)
    }
    // An output can be silent at a small size: a detector's coarsest grid has no cell in a small image.
    if (best !== null && muteOutput() === undefined) break
  }
  if (best === null) return batchingResult(false, `could not be probed: ${refusal ?? 'the time ran out'}`)
  const mute = muteOutput()
  if (mute !== undefined || shown.size === 0) {
    const which = mute === undefined ? 'no output' : `output ${quoted(mute.name)} hardly`
    return batchingResult(false, `${which} differs between rows, so it cannot show an influence`)
  }
  const limit = best.limit === null ? '' : `; no more, as ${best.limit}`
  return batchingResult(true, `rows run alone and together agree (sizes ${best.sizes.join(', ')}${limit})`)
}
