/**
 * Lets a worker request server-wide operations from the primary by message, on behalf of a client.
 */
import type { IndexEntry } from '../src/api/schemas.js'
import type { ServerControl } from '../src/api/server-control.js'
import { OnecopyError } from '../src/errors.js'
import type { ControlAnswer, ControlRequest, ToPrimary } from './messages.js'

interface PendingRequest {
  resolve(index: IndexEntry[]): void
  reject(failure: OnecopyError): void
}

export class ControlLink implements ServerControl {
  readonly isExplicit: boolean
  readonly #send: (message: ToPrimary) => Promise<void>
  readonly #pending = new Map<number, PendingRequest>()
  #nextId = 0

  constructor(options: {
    readonly isExplicit: boolean
    readonly send: (message: ToPrimary) => Promise<void>
  }) {
    this.isExplicit = options.isExplicit
    this.#send = options.send
  }

  index(): Promise<IndexEntry[]> {
    return this.#request({ action: 'index' })
  }

  async load(model: string, config: string | null): Promise<void> {
    await this.#request({ action: 'load', model, config })
  }

  async unload(model: string): Promise<void> {
    await this.#request({ action: 'unload', model })
  }

  async setLogLevel(level: Parameters<ServerControl['setLogLevel']>[0]): Promise<void> {
    await this.#request({ action: 'setLogLevel', level })
  }

  async #request(request: ControlRequest): Promise<IndexEntry[]> {
    const id = this.#nextId++
    const answered = new Promise<IndexEntry[]>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
    })
    void this.#send({ type: 'control', id, request })
    return await answered
  }

  take(id: number, { index, problem }: ControlAnswer): void {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    if (problem === null) pending?.resolve(index ?? [])
    else pending?.reject(new OnecopyError(problem.code, problem.message, { headers: problem.headers }))
  }

  /** The primary has died: no more responses arrive. */
  abandon(): void {
    for (const { reject } of this.#pending.values())
      reject(new OnecopyError('SHUTTING_DOWN', 'the server is shutting down'))
    this.#pending.clear()
  }
}
