/** Messages between the soak test and its runners. */
import type { AttachedModel } from '../../cluster/index.js'

export type Command =
  | { readonly type: 'attach'; readonly onSwap: 'stay' | 'follow' }
  | { readonly type: 'run' }
  /** Attaches, runs and closes until it is killed. */
  | { readonly type: 'churn' }
  /** Acquires a lease and keeps it. */
  | { readonly type: 'lease'; readonly serverFolder: string }
  | { readonly type: 'close' }

export type Report =
  | { readonly type: 'attached' }
  | { readonly type: 'ran'; readonly values: readonly number[] }
  | { readonly type: 'leased' }
  | { readonly type: 'event'; readonly name: string }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  | { readonly type: 'closed' }

export interface Target {
  readonly segmentDir: string
  readonly model: string
  readonly input: string
  readonly row: readonly number[]
}

/** The model's first output for the row of the target. */
export async function valuesOf(model: AttachedModel, { input, row }: Target): Promise<number[]> {
  const data = Float32Array.from(row)
  const [output] = Object.values(await model.run({ [input]: { data, shape: [1, data.length] } }))
  return Array.from((output?.data ?? []) as ArrayLike<number>)
}
