/**
 * Determines whether requests of a model can be batched along the first dimension.
 *
 * Shapes only identify candidates. The first dimension can also be time, and a model can normalise, sort or
 * quantise over it. Batching such requests would silently make each result depend on other requests. So the
 * compiled graph must be proven to keep rows independent (proof/prove.ts). Then synthetic rows are run alone
 * and together, and the model is only batched if the outputs agree. A false "no" costs speed, a false "yes"
 * correctness, so doubt counts as no.
 */
import { type Batching, MAX_BATCHING_REASON_CHARACTERS, MAX_NODE_CHARACTERS } from '../segment/layout.js'
import type { TensorSpec } from '../tensor.js'
import { isFloat } from './float-bits.js'
import { type IndexLimits, type Trial, VOCABULARIES } from './probe-inputs.js'
import { type Agreed, runTrial, type TrialOptions } from './probe-runs.js'
import type { Cause } from './proof/values.js'

/** Sizes tried for the other variable dimensions until rows run and differ in every output. */
const TRIAL_DIMENSIONS = [8, 16, 1, 32, 64, 224]
/** Float ranges: one for most models, one that saturates activations, one for roots and logarithms. */
const FLOAT_RANGES = [
  [-1, 1],
  [-10, 10],
  [0, 1],
] as const
const DEFAULT_BUDGET_MS = 5000
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

/** The batching result for a graph without a proof. */
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
 * Why the declared shapes rule out batching; null for a candidate. Every input and served output must have a
 * variable first dimension, and the names of the inputs' first dimensions must not differ. Output names are
 * left to the probe, because exporters invent them.
 */
export function shapesAgainstBatching(options: {
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Names of the inputs' dimensions ('' for unnamed ones), by input. */
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
    if (again !== undefined) return `a later dimension of input ${quoted(name)} is also ${quoted(again)}`
  }
  return null
}

export interface ProbeOptions
  extends Omit<TrialOptions, 'trial' | 'round' | 'seed' | 'deadlineMs' | 'indexLimits'> {
  /** The known size of the table that each integer input indexes. */
  readonly indexLimits?: IndexLimits
  /** Time after which no optional run is started; a single run is never interrupted. */
  readonly budgetMs?: number
}

/** Settings to try, in order, until rows run and differ in every output. */
function settingsFor(inputs: readonly TensorSpec[]): Omit<Trial, 'range'>[] {
  const isVariable = inputs.some(({ shape }) => shape?.slice(1).includes(-1))
  const hasVocabulary = inputs.some((spec) => !isFloat(spec.datatype) && spec.datatype !== 'BOOL')
  return TRIAL_DIMENSIONS.slice(0, isVariable ? undefined : 1).flatMap((dimension) =>
    VOCABULARIES.slice(0, hasVocabulary ? undefined : 1).map((vocabulary) => ({ dimension, vocabulary })),
  )
}

/**
 * Runs synthetic rows alone and together and compares the outputs. Never rejects: a model that cannot be
 * probed is not batched.
 */
export async function probeBatching(options: ProbeOptions): Promise<Batching> {
  const { inputs, outputs, budgetMs = DEFAULT_BUDGET_MS } = options
  const deadlineMs = performance.now() + budgetMs
  let refusal: string | null = null
  let best: Agreed | null = null
  let lastRoundMs = 0
  const shown = new Set<string>()
  // Labels may be equal for all rows, but the floats behind them must differ.
  const muteOutput = () => outputs.find((spec) => isFloat(spec.datatype) && !shown.has(spec.name))
  settings: for (const setting of settingsFor(inputs)) {
    for (const [round, range] of FLOAT_RANGES.entries()) {
      const startedMs = performance.now()
      if (startedMs + lastRoundMs > deadlineMs) break settings
      const outcome = await runTrial({
        ...options,
        indexLimits: options.indexLimits ?? new Map(),
        trial: { ...setting, range },
        ...{ round, seed: SEED + round, deadlineMs },
      })
      if (outcome.kind === 'different') return batchingResult(false, outcome.reason)
      if (outcome.kind === 'refused') {
        refusal ??= outcome.words
        continue
      }
      lastRoundMs = performance.now() - startedMs
      best ??= outcome
      for (const name of outcome.shown) shown.add(name)
    }
    // An output can be empty at a small size: the coarsest grid of a detector has no cell in a small image.
    if (best !== null && muteOutput() === undefined) break
  }
  if (best === null)
    return batchingResult(false, `could not be probed: ${refusal ?? 'the time limit was reached'}`)
  const mute = muteOutput()
  if (mute !== undefined || shown.size === 0) {
    const which = mute === undefined ? 'no output' : `output ${quoted(mute.name)} hardly`
    return batchingResult(false, `${which} differs between rows, so an influence could not be detected`)
  }
  const limit = best.limit === null ? '' : `; larger sizes skipped because ${best.limit}`
  return batchingResult(true, `rows run alone and together agree (sizes ${best.sizes.join(', ')}${limit})`)
}
