/**
 * Request counts per client over all workers. The counts are in a stats page with one slot for each worker.
 * Each slot has one writer, so no locks or messages are needed. A limit holds however the connections of a
 * client are distributed.
 *
 * Each slot is a count-min sketch (Cormode and Muthukrishnan, 2005), so memory does not grow with the number
 * of clients. The sketch has four rows of buckets. A client uses one bucket per row, and its count is the
 * minimum of the four. Two clients share a limit only if all four buckets collide. With a thousand busy
 * clients that affects one in fifty. The buckets depend on a secret, so a client cannot choose to collide with
 * another client.
 *
 * The rate uses a sliding window: the count of the previous window is weighted by the part of it that lies
 * within the last `windowMs`. Workers that check at the same moment can both admit the last request, so a
 * limit can be exceeded by at most the number of workers minus one.
 */
import { createHash } from 'node:crypto'

const ROWS = 4
const BUCKETS = 2048
const CELLS = { window: 0, count: 1, before: 2, inside: 3 } as const
/** A bucket takes at most one cache line. */
const BUCKET_CELLS = Object.keys(CELLS).length

export const CLIENT_CELL_COUNT = ROWS * BUCKETS * BUCKET_CELLS

/** Clears the in-flight counts of a dead process; its admitted requests stay counted. */
export function forgetInside(cells: Float64Array): void {
  for (let at = CELLS.inside; at < cells.length; at += BUCKET_CELLS) cells[at] = 0
}

export interface ClientCountsOptions {
  /** Cells of this process. No other process writes to them. */
  readonly own: Float64Array
  /** Cells of all processes, including this one. */
  readonly all: readonly Float64Array[]
  /** Shared by all processes of a server and unknown to clients. */
  readonly secret: string
}

export class ClientCounts {
  readonly #options: ClientCountsOptions

  constructor(options: ClientCountsOptions) {
    this.#options = options
  }

  /** The first cell of the client's bucket in each row. */
  #bucketsOf(client: string): number[] {
    const digest = createHash('sha256').update(this.#options.secret).update(client).digest()
    return Array.from(
      { length: ROWS },
      (_, row) => (row * BUCKETS + (digest.readUInt32LE(row * 4) % BUCKETS)) * BUCKET_CELLS,
    )
  }

  /**
   * Requests of the client in this window and the previous one, over all processes. Never too low; rarely
   * slightly too high.
   */
  #requestsOf(buckets: readonly number[], window: number): { now: number; before: number } {
    let least = { now: Number.POSITIVE_INFINITY, before: Number.POSITIVE_INFINITY }
    for (const bucket of buckets) {
      let now = 0
      let before = 0
      for (const cells of this.#options.all) {
        const counted = cells[bucket + CELLS.window] as number
        const count = cells[bucket + CELLS.count] as number
        if (counted === window) {
          now += count
          before += cells[bucket + CELLS.before] as number
        } else if (counted === window - 1) before += count
      }
      if (now + before < least.now + least.before) least = { now, before }
    }
    return least
  }

  /**
   * Admits a request and returns null, or returns the milliseconds until the next one can be admitted.
   * `nowMs` is on a clock that all processes share.
   */
  admit(
    client: string,
    { requests: limit, windowMs }: { readonly requests: number; readonly windowMs: number },
    nowMs: number,
  ): number | null {
    const buckets = this.#bucketsOf(client)
    const window = Math.floor(nowMs / windowMs)
    const elapsed = nowMs / windowMs - window
    const { now, before } = this.#requestsOf(buckets, window)
    if (now + before * (1 - elapsed) + 1 > limit) {
      const nextMs = (window + 1) * windowMs
      // Still in this window, once the weight of the previous one has dropped; otherwise in the next window.
      const hasRoom = now + 1 <= limit
      const share = hasRoom ? (limit - 1 - now) / before : (limit - 1) / now
      const fromMs = hasRoom ? window * windowMs : nextMs
      return Math.max(1, fromMs + (1 - share) * windowMs - nowMs)
    }
    for (const bucket of buckets) this.#count(bucket, window)
    return null
  }

  #count(bucket: number, window: number): void {
    const { own } = this.#options
    const counted = own[bucket + CELLS.window] as number
    if (counted === window) {
      own[bucket + CELLS.count] = (own[bucket + CELLS.count] as number) + 1
      return
    }
    own[bucket + CELLS.before] = counted === window - 1 ? (own[bucket + CELLS.count] as number) : 0
    own[bucket + CELLS.count] = 1
    own[bucket + CELLS.window] = window
  }

  /**
   * Starts a request; returns false if the client already has `limit` requests in flight. End it with
   * `leave`.
   */
  enter(client: string, limit: number): boolean {
    const buckets = this.#bucketsOf(client)
    let least = Number.POSITIVE_INFINITY
    for (const bucket of buckets) {
      let inside = 0
      for (const cells of this.#options.all) inside += cells[bucket + CELLS.inside] as number
      least = Math.min(least, inside)
    }
    if (least >= limit) return false
    this.#addInside(buckets, 1)
    return true
  }

  leave(client: string): void {
    this.#addInside(this.#bucketsOf(client), -1)
  }

  #addInside(buckets: readonly number[], change: number): void {
    const { own } = this.#options
    for (const bucket of buckets) own[bucket + CELLS.inside] = (own[bucket + CELLS.inside] as number) + change
  }
}
