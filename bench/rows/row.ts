/** One claim about speed or stability, measured in one run. */
import type { BenchReport } from '../harness/report.js'
import type { Stage } from '../harness/stage.js'
import { parseRecipe } from '../models/recipes.js'
import { ensureModel, type GeneratedModel } from '../models/store.js'

export interface RowOptions {
  /** Duration of one measurement of one variant. */
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  /** Requests to each worker, for rows with a number of requests instead of a duration. */
  readonly batches: number
}

export interface RowContext {
  readonly name: string
  readonly title: string
  /** Stops everything that the row starts. */
  readonly stage: Stage
  readonly options: RowOptions
}

export interface Row {
  readonly name: string
  readonly title: string
  run(context: RowContext): Promise<BenchReport>
}

/** A generated model in a separate repository, so that a server serves nothing else. */
export function benchModel(name: string): Promise<GeneratedModel> {
  return ensureModel(parseRecipe(name))
}
