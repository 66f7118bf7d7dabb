/**
 * Retries loads that failed when a worker booted. The number of attempts is limited, because a load delays
 * requests to other models.
 */
import { OnecopyError, type OutOfService, outOfServiceBecauseOf } from '../../src/errors.js'

const FIRST_DELAY_MS = 1000
const DELAY_FACTOR = 4
/** The last attempt is about six minutes after the boot. */
const MAX_ATTEMPTS = 5

export interface LateLoadsOptions<W> {
  /** Loads the generation if it is still needed. */
  readonly load: (worker: W, key: string) => Promise<void>
  readonly onFailed: (worker: W, key: string, state: OutOfService) => void
}

export class LateLoads<W> {
  readonly #options: LateLoadsOptions<W>
  readonly #timers = new Set<NodeJS.Timeout>()

  constructor(options: LateLoadsOptions<W>) {
    this.#options = options
  }

  start(worker: W, key: string): void {
    this.#schedule(worker, key, 1)
  }

  #schedule(worker: W, key: string, attempt: number): void {
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
      // The exit of the worker reports a bug or a dead worker.
      if (!(thrown instanceof OnecopyError) || thrown.code === 'WORKER_GONE') return
      onFailed(worker, key, outOfServiceBecauseOf(thrown))
      if (attempt < MAX_ATTEMPTS) this.#schedule(worker, key, attempt + 1)
    }
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
  }
}
