/**
 * Checks whether the result for a sequence depends on its padding. It does if a graph ignores its attention mask, or
 * normalises over all places.
 */
import { floatsOf } from '../tensor.js'
import { paddedInputs, poolingOf, type Sequence, type TextInterface } from './interface.js'
import type { RunBatch } from './length-batcher.js'

/** As a share of the largest element, because kernels sum in a different order for each shape. */
export const PADDING_TOLERANCE = 1e-4
/** Lengths of the sequence and of the batch: below and above the width of vector instructions. */
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
    // Logits of padding are left out.
    const own = shape.length === 1 ? elements : ids.length * (shape.at(-1) as number)
    return floats.slice(at * elements, at * elements + own)
  })
}

/**
 * Why padding changes results; null if it does not.
 * @throws OnecopyError MODEL_RUN_FAILED if the model rejects such inputs.
 */
export async function findPaddingProblem(check: PaddingCheck): Promise<string | null> {
  for (const [short, long] of LENGTHS) {
    if (long > check.maxLength) continue
    const sequence = sequenceOf(short, check, 1)
    const [alone] = await rowsOf([sequence], check)
    const [padded] = await rowsOf([sequence, sequenceOf(long, check, 2)], check)
    if (alone === undefined || padded === undefined || alone.length !== padded.length)
      return 'the result of a sequence changes its shape when it is padded'
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
