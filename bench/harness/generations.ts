/**
 * Identifies the generation of a model that produced a response, and checks that it was current. A generation
 * is current from the start of its load request until the response to the next load. Times are taken before a
 * start and after an end, so a span is never too short.
 */

/** Relative to the scale of the output: the order of summation depends on the batch. */
const TOLERANCE = 1e-4
/** Generations must differ by far more than rounding, or responses could not be distinguished. */
const MIN_DISTANCE = 100 * TOLERANCE

export type Verdict = 'current' | 'not current' | 'unknown generation'

/** Outputs of the model by generation and request. */
export type References = readonly (readonly (readonly number[])[])[]

interface Span {
  readonly generation: number
  readonly fromMs: number
  untilMs: number
  answers: number
}

/** Largest difference of two outputs, relative to the scale of the second. */
function distance(values: readonly number[], reference: readonly number[]): number {
  if (values.length !== reference.length) return Number.POSITIVE_INFINITY
  const scale = Math.max(...reference.map(Math.abs))
  const differences = values.map((value, i) => Math.abs(value - (reference[i] ?? Number.NaN)))
  return differences.some(Number.isNaN) ? Number.POSITIVE_INFINITY : Math.max(...differences) / scale
}

/** @throws Error if two generations have the same outputs. */
export function assertDistinct(references: References): void {
  for (const [a, first] of references.entries()) {
    for (const [b, second] of references.entries()) {
      for (const [i, values] of first.entries()) {
        if (a === b || distance(values, second[i] ?? []) > MIN_DISTANCE) continue
        throw new Error(`generations ${a + 1} and ${b + 1} have the same output for request ${i + 1}`)
      }
    }
  }
}

export class Generations {
  readonly #references: References
  readonly #spans: Span[] = []

  constructor(references: References, first: number) {
    assertDistinct(references)
    this.#references = references
    this.begin(first)
  }

  /** To be called before a load request. */
  begin(generation: number): void {
    this.#spans.push({ generation, fromMs: performance.now(), untilMs: Number.POSITIVE_INFINITY, answers: 0 })
  }

  /** To be called after the response to the load: earlier generations must not answer later requests. */
  settle(): void {
    for (const span of this.#spans.slice(0, -1).reverse()) {
      if (span.untilMs !== Number.POSITIVE_INFINITY) return
      span.untilMs = performance.now()
    }
  }

  /** Generations without a response while they were current. */
  get silent(): number {
    return this.#spans.filter(({ answers }) => answers === 0).length
  }

  judge(answer: {
    readonly requestIndex: number
    readonly values: readonly number[]
    readonly sentMs: number
    readonly answeredMs: number
  }): Verdict {
    const { requestIndex, values, sentMs, answeredMs } = answer
    const generation = this.#references.findIndex(
      (requests) => distance(values, requests[requestIndex] ?? []) <= TOLERANCE,
    )
    if (generation === -1) return 'unknown generation'
    for (let i = this.#spans.length - 1; i >= 0; i--) {
      const span = this.#spans[i]
      // Newest first: all further spans ended before the request was sent.
      if (span === undefined || span.untilMs < sentMs) return 'not current'
      if (span.generation !== generation || span.fromMs > answeredMs) continue
      span.answers++
      return 'current'
    }
    return 'not current'
  }
}
