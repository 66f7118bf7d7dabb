/** One claim about speed or steadiness, measured in one run of its own. */
import type { BenchReport } from '../harness/report.js'
import type { Stage } from '../harness/stage.js'
import { parseRecipe } from '../models/recipes.js'
import { ensureModel, type GeneratedModel } from '../models/store.js'

export interface RowOptions {
  /** Length of one measurement of one variant. */
  readonly seconds: number
  readonly rounds: number
  readonly workers: number
  /** Requests to each worker, where a row counts them and not seconds. */
  readonly batches: number
}

export interface RowContext {
  readonly name: string
  readonly title: string
  /** Stops all that the row started, whatever happens. */
  readonly stage: Stage
  readonly options: RowOptions
}

export interface Row {
  readonly name: string
  readonly title: string
  run(context: RowContext): Promise<BenchReport>
}

/** Each model in a repository of its own: a server is started on nothing but the model measured. */
export function benchModel(name: string): Promise<GeneratedModel> {
  return ensureModel(parseRecipe(name))
}
