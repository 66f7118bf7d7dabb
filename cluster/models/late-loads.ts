/**
 * Has a worker load what it could not when it booted: again after a while, and a few times only, because loading holds
 * up the requests of other models.
 */
import { OnecopyError, type OutOfService, outOfServiceBecauseOf } from '../../src/errors.js'

const FIRST_DELAY_MS = 1000
const DELAY_FACTOR = 4
/** The last one comes after some six minutes. */
const MAX_ATTEMPTS = 5

export interface LateLoadsOptions<W> {
  /** Loads it, if there is any use in it still. */
  readonly load: (worker: W, key: string) => Promise<void>
  readonly onFailed: (worker: W, key: string, state: OutOfService) => void
}

export class LateLoads<W> {
  readonly #options: LateLoadsOptions<W>
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(options: LateLoadsOptions<W>) {
    this.#options = options
  }

  begin(worker: W, key: string): void {
    this.#later(worker, key, 1)
  }

  #later(worker: W, key: string, attempt: number): void {
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer)
        void this.#attempt(worker, key, attempt)
      },
      FIRST_DELAY_MS * DELAY_FACTOR ** (attempt - 1),
    ).unref()
    this.#timers.add(timer)
  }

  async #attempt(worker: W, key: string, attempt: number): Promise<void> {
    const { load, onFailed } = this.#options
    try {
      await load(worker, key)
    } catch (thrown) {
      // A worker that is gone, or a bug, is reported by its exit.
      if (!(thrown instanceof OnecopyError) || thrown.code === 'WORKER_GONE') return
      onFailed(worker, key, outOfServiceBecauseOf(thrown))
      if (attempt < MAX_ATTEMPTS) this.#later(worker, key, attempt + 1)
    }
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
  }
}
