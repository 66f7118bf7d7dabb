/**
 * Frees memory after large requests and responses. Their memory outside the heap is freed by a collection,
 * and V8 collects only under allocation pressure: an idle worker kept hundreds of megabytes for minutes. So a
 * collection runs after large exchanges. Needs `node --expose-gc`.
 */
import type { Context } from 'koa'
import { returnFreePages } from '../mapping.js'
import type { RequestState } from './request-state.js'

/** Below this, summed over all exchanges since the last collection, V8 decides. */
const LARGE_BYTES = 16 * 1024 * 1024
/** By then the kernel has the last bytes of a response. */
const DELAY_MS = 500
/** Minimum interval between collections, which pause for some tens of milliseconds. */
const REST_MS = 5000

/** Minimum memory of a request that is counted. */
const WORTH_TELLING_BYTES = 256 * 1024

export class LargeExchanges {
  #bytes = 0
  #timer: NodeJS.Timeout | undefined
  #restUntilMs = 0

  /** Counts the memory of a request and its response once the connection has released them. */
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
    // Streams release their buffers in the next turn; the second run frees their memory.
    setImmediate(() => {
      globalThis.gc?.()
      returnFreePages()
    })
  }
}
