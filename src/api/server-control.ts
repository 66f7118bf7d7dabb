/** What a port may offer beyond inference: models that come and go, and how much is logged. */
import * as z from 'zod'
import type { IndexEntry } from './schemas.js'

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const
export const logLevelSchema = z.enum(LOG_LEVELS)
export type LogLevel = z.infer<typeof logLevelSchema>

export interface RepositoryApi {
  /** Whether models are loaded and unloaded on request. */
  readonly isExplicit: boolean
  index(): Promise<IndexEntry[]>
  /**
   * Serves every version of a model as it is in the repository now. `config` is JSON that takes the place of its config.json
   * until the next load; null leaves that in force.
   */
  load(name: string, config: string | null): Promise<void>
  unload(name: string): Promise<void>
}

export interface ServerControl extends RepositoryApi {
  /** Of every process of the server. */
  setLogLevel(level: LogLevel): Promise<void>
}
