/** From molecules to rows of values, by whichever way a bundle has: the resident model, or its run.sh. */
import type { Row } from './orient.js'

export interface PredictOptions {
  /** Whether nobody waits for the result any more. */
  readonly isCancelled?: () => boolean
  /** Told how many of the inputs are done. */
  readonly onProgress?: (done: number) => void
}

export interface Predictor {
  /**
   * A row for every input, in order. What is no molecule is a row of nulls.
   * @throws OnecopyError of the model or of run.sh, REQUEST_CANCELLED.
   */
  predict(inputs: readonly unknown[], options?: PredictOptions): Promise<Row[]>
  close(): Promise<void>
}
