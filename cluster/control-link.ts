/** A worker's way to what only the primary can do: it asks by message, in the name of a client. */
import type { IndexEntry } from '../src/api/schemas.js'
import type { ServerControl } from '../src/api/server-control.js'
import { OnecopyError } from '../src/errors.js'
import type { ControlAnswer, ControlRequest, ToPrimary } from './messages.js'

interface Asked {
  resolve(index: IndexEntry[]): void
  reject(failure: OnecopyError): void
}

export class ControlLink implements ServerControl {
  readonly isExplicit: boolean
  readonly #send: (message: ToPrimary) => Promise<void>
  readonly #asked = new Map<number, Asked>()
  #nextId = 0

  constructor(options: {
    readonly isExplicit: boolean
    readonly send: (message: ToPrimary) => Promise<void>
  }) {
    this.isExplicit = options.isExplicit
    this.#send = options.send
  }

  index(): Promise<IndexEntry[]> {
    return this.#ask({ action: 'index' })
  }

  async load(model: string, config: string | null): Promise<void> {
    await this.#ask({ action: 'load', model, config })
  }

  async unload(model: string): Promise<void> {
    await this.#ask({ action: 'unload', model })
  }

  async setLogLevel(level: Parameters<ServerControl['setLogLevel']>[0]): Promise<void> {
    await this.#ask({ action: 'setLogLevel', level })
  }

  async #ask(request: ControlRequest): Promise<IndexEntry[]> {
    const id = this.#nextId++
    const answered = new Promise<IndexEntry[]>((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
    })
    void this.#send({ type: 'control', id, request })
    return await answered
  }

  take(id: number, { index, problem }: ControlAnswer): void {
    const asked = this.#asked.get(id)
    this.#asked.delete(id)
    if (problem === null) asked?.resolve(index ?? [])
    else asked?.reject(new OnecopyError(problem.code, problem.message, { headers: problem.headers }))
  }

  /** The primary is gone: there will be no more responses. */
  abandon(): void {
    for (const { reject } of this.#asked.values())
      reject(new OnecopyError('SHUTTING_DOWN', 'the server is shutting down'))
    this.#asked.clear()
  }
}
