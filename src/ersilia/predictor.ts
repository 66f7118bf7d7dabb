/** Converts molecules to rows of values, with the resident model or with run.sh. */
import type { Row } from './orient.js'

export interface PredictOptions {
  /** Whether the result is no longer needed. */
  readonly isCancelled?: () => boolean
  /** Receives the number of completed inputs. */
  readonly onProgress?: (done: number) => void
}

export interface Predictor {
  /**
   * Returns a row for every input, in order. Invalid molecules get a row of nulls.
   * @throws OnecopyError of the model or of run.sh, REQUEST_CANCELLED.
   */
  predict(inputs: readonly unknown[], options?: PredictOptions): Promise<Row[]>
  close(): Promise<void>
}
