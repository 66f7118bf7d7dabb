/**
 * Server-wide changes, applied by the primary for the admin port and for workers on behalf of
 * clients.
 */
import cluster, { type Worker } from 'node:cluster'
import type { IndexEntry } from '../src/api/schemas.js'
import type { LogLevel, RepositoryApi, ServerControl } from '../src/api/server-control.js'
import type { Config } from '../src/config/config.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import type { Log } from '../src/log.js'
import { type ControlAnswer, type ControlRequest, ToPrimarySchema, type ToWorker } from './messages.js'
import { repositoryApiOf } from './models/repository-api.js'
import type { RepositoryControl } from './models/repository-control.js'

interface ControlledWorker {
  send(message: ToWorker): void
}

export interface ControlServerOptions {
  readonly config: Pick<Config, 'modelControl'>
  /** Undefined until the server is ready. */
  readonly repository: () => RepositoryControl | undefined
  readonly serverState: () => string
  readonly log: Log
  /** Every worker that has not ended. */
  readonly workers: () => readonly ControlledWorker[]
}

export class ControlServer implements ServerControl {
  readonly #options: ControlServerOptions
  readonly #repository: RepositoryApi
  /** Null means the configured level. */
  #level: LogLevel | null = null

  constructor(options: ControlServerOptions) {
    const { config, repository, serverState } = options
    this.#options = options
    this.#repository = repositoryApiOf(repository, {
      isExplicit: config.modelControl === 'explicit',
      serverState,
    })
  }

  get isExplicit(): boolean {
    return this.#repository.isExplicit
  }

  index(): Promise<IndexEntry[]> {
    return this.#repository.index()
  }

  load(name: string, config: string | null): Promise<void> {
    return this.#repository.load(name, config)
  }

  unload(name: string): Promise<void> {
    return this.#repository.unload(name)
  }

  async setLogLevel(level: LogLevel): Promise<void> {
    const { log, workers } = this.#options
    log.info({ level }, 'the log level was changed')
    this.#level = level
    log.level = level
    for (const worker of workers()) worker.send({ type: 'logLevel', level })
  }

  /** Workers start with the configured level: sends the current one to a new worker. */
  sendLevel(worker: ControlledWorker): void {
    if (this.#level !== null) worker.send({ type: 'logLevel', level: this.#level })
  }

  /** Starts to answer requests of workers. */
  listen(): void {
    cluster.on('message', (worker: Worker, raw: unknown) => void this.#receive(worker, raw))
  }

  async #receive(worker: Worker, raw: unknown): Promise<void> {
    const parsed = ToPrimarySchema.safeParse(raw)
    // The worker handle ends a worker that sends a malformed message.
    if (!parsed.success || parsed.data.type !== 'control') return
    const { id, request } = parsed.data
    const answer: ToWorker = { type: 'controlled', id, ...(await this.#answer(request)) }
    // A worker that cannot be reached has ended.
    worker.send(answer, () => {})
  }

  async #answer(request: ControlRequest): Promise<ControlAnswer> {
    try {
      return { index: await this.#perform(request), problem: null }
    } catch (thrown) {
      const error =
        thrown instanceof OnecopyError
          ? thrown
          : new OnecopyError('INTERNAL', messageOf(thrown), { cause: thrown })
      const { code, message, headers } = error
      return { index: null, problem: { code, message, headers: { ...headers } } }
    }
  }

  async #perform(request: ControlRequest): Promise<IndexEntry[] | null> {
    switch (request.action) {
      case 'index':
        return await this.index()
      case 'load':
        await this.load(request.model, request.config)
        return null
      case 'unload':
        await this.unload(request.model)
        return null
      case 'setLogLevel':
        await this.setLogLevel(request.level)
        return null
    }
  }
}
