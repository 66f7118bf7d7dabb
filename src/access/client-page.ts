/**
 * How much each client asks for, over all workers. The counts stand in a stats page: a slot for each worker, one writer a
 * slot, so there is no lock and no message, and a limit holds however a client's connections are dealt out.
 *
 * Clients are many and memory is not, so a slot is a sketch (count-min: Cormode and Muthukrishnan, 2005): four rows of
 * buckets, a client counts in one bucket of each, and the least of the four is taken. Two clients
 * share what they may only where all four coincide: with a thousand busy clients for one in fifty, and then as far as the
 * others count. Which buckets they are depends on a secret, so no one can choose to share with another.
 *
 * The rate is that of a sliding window: what was counted in the window before weighs as much as of it
 * still lies within the last `windowMs`. Two workers that look at the same moment may both let the last request in: a
 * limit can be exceeded by as many as there are workers, less one.
 */
import { createHash } from 'node:crypto'

const ROWS = 4
const BUCKETS = 2048
const CELLS = { window: 0, count: 1, before: 2, inside: 3 } as const
/** One cache line or less a bucket. */
const BUCKET_CELLS = Object.keys(CELLS).length

export const CLIENT_CELL_COUNT = ROWS * BUCKETS * BUCKET_CELLS

/** Wipes what a process that is gone had inside; what it let in stays counted. */
export function forgetInside(cells: Float64Array): void {
  for (let at = CELLS.inside; at < cells.length; at += BUCKET_CELLS) cells[at] = 0
}

export interface ClientCountsOptions {
  /** Cells of this process; no other writes to them. */
  readonly own: Float64Array
  /** Cells of all processes, its own included. */
  readonly all: readonly Float64Array[]
  /** The same for all processes of a server, and known to nobody else. */
  readonly secret: string
}

export class ClientCounts {
  readonly #options: ClientCountsOptions

  constructor(options: ClientCountsOptions) {
    this.#options = options
  }

  /** Where a client counts: the first cell of a bucket in each row. */
  #bucketsOf(client: string): number[] {
    const digest = createHash('sha256').update(this.#options.secret).update(client).digest()
    return Array.from(
      { length: ROWS },
      (_, row) => (row * BUCKETS + (digest.readUInt32LE(row * 4) % BUCKETS)) * BUCKET_CELLS,
    )
  }

  /** Requests of the client in this window and in the one before, over all processes; at most a little too many. */
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
   * Lets a request in, or returns after how many milliseconds the next one may be (null: it is in). `nowMs` is on the
   * clock that all processes share.
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
      // In this window, once enough of the one before has faded; else in the next, where this one fades.
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

  /** A request begins; false where the client has `limit` inside already. To be ended by `leave`. */
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
