/**
 * Memory after large requests and answers. What they took outside the heap is free when V8 collects, and V8 collects when
 * new objects pile up: a worker that had answered with hundreds of megabytes and then idled kept them for minutes. So
 * where much has passed through it is collected once it is over. Needs `node --expose-gc`.
 */
import type { Context } from 'koa'
import { returnFreePages } from '../mapping.js'
import type { RequestState } from './request-state.js'

/** Less than this, over all exchanges since the last time, is left to V8. */
const LARGE_BYTES = 16 * 1024 * 1024
/** The last bytes of an answer are with the kernel by then. */
const DELAY_MS = 500
/** A pause of some tens of milliseconds, at most so often. */
const REST_MS = 5000

/** What one request holds; smaller ones are not worth a look. */
const WORTH_TELLING_BYTES = 256 * 1024

export class LargeExchanges {
  #bytes = 0
  #timer: NodeJS.Timeout | undefined
  #restUntilMs = 0

  /** Has it counted, when the connection is done with it, how much a request and its answer held. */
  follow({ res, state }: Pick<Context, 'res' | 'state'>): void {
    const { heldBytes = 0 } = state as RequestState
    if (heldBytes >= WORTH_TELLING_BYTES) res.once('close', () => this.#ended(heldBytes))
  }

  #ended(bytes: number): void {
    this.#bytes += bytes
    if (globalThis.gc === undefined || this.#timer !== undefined || this.#bytes < LARGE_BYTES) return
    const delayMs = Math.max(DELAY_MS, this.#restUntilMs - performance.now())
    this.#timer = setTimeout(() => this.#collect(), delayMs).unref()
  }

  #collect(): void {
    this.#timer = undefined
    this.#bytes = 0
    this.#restUntilMs = performance.now() + REST_MS
    globalThis.gc?.()
    // Streams let go of their buffers in the next turn, and what those held is free after the second run.
    setImmediate(() => {
      globalThis.gc?.()
      returnFreePages()
    })
  }
}
