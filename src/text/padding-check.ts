/**
 * Whether what a model answers for a sequence depends on how far it was padded: tried when it is loaded. A graph that
 * does not look at its attention mask, or normalises over all places, gives another vector in longer company.
 */
import { floatsOf } from '../tensor.js'
import { paddedInputs, poolingOf, type Sequence, type TextInterface } from './interface.js'
import type { RunBatch } from './length-batcher.js'

/** As a share of the largest element: kernels add up in other orders for other shapes. */
export const PADDING_TOLERANCE = 1e-4
/** The same, where the sequence is right at the end of a vector width and beyond. */
const LENGTHS = [
  [3, 5],
  [7, 24],
] as const

export interface PaddingCheck {
  readonly textInterface: TextInterface
  readonly paddingId: number
  readonly maxLength: number
  readonly vocabularySize: number
  readonly run: RunBatch
}

function sequenceOf(length: number, { vocabularySize, paddingId }: PaddingCheck, seed: number): Sequence {
  const ids = Array.from({ length }, (_, i) => {
    const id = ((i + 1) * 7919 + seed * 104_729) % vocabularySize
    return id === paddingId ? (id + 1) % vocabularySize : id
  })
  return { ids, typeIds: ids.map(() => 0) }
}

async function rowsOf(sequences: readonly Sequence[], check: PaddingCheck): Promise<Float32Array[]> {
  const { textInterface, paddingId, run } = check
  const { outputs } = await run({
    inputs: paddedInputs(textInterface, sequences, paddingId),
    outputNames: [textInterface.output.name],
    ...poolingOf(textInterface, sequences),
    isCancelled: () => false,
  })
  const [output] = outputs
  if (output === undefined) return []
  const floats = floatsOf(output)
  const elements = floats.length / sequences.length
  const [, ...shape] = output.shape
  return sequences.map(({ ids }, at) => {
    // Of logits for each token, those of the sequence itself.
    const own = shape.length === 1 ? elements : ids.length * (shape.at(-1) as number)
    return floats.slice(at * elements, at * elements + own)
  })
}

/**
 * What speaks against padding, or null.
 * @throws OnecopyError MODEL_RUN_FAILED where the model does not take such inputs at all.
 */
export async function findPaddingProblem(check: PaddingCheck): Promise<string | null> {
  for (const [short, long] of LENGTHS) {
    if (long > check.maxLength) continue
    const sequence = sequenceOf(short, check, 1)
    const [alone] = await rowsOf([sequence], check)
    const [padded] = await rowsOf([sequence, sequenceOf(long, check, 2)], check)
    if (alone === undefined || padded === undefined || alone.length !== padded.length)
      return 'a sequence has another shape in longer company'
    const scale = alone.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    const difference = alone.reduce(
      (most, value, i) => Math.max(most, Math.abs(value - (padded[i] as number))),
      0,
    )
    if (!(difference <= PADDING_TOLERANCE * scale))
      return `a sequence of ${short} tokens differs by ${difference.toPrecision(2)} when it is padded to ${long}`
  }
  return null
}
