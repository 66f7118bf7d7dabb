/** Named states with legal moves, and an orderly close: what was opened last is closed first. */
import { OnecopyError } from './errors.js'
import { formatMs } from './units.js'

export type ServerState = 'starting' | 'ready' | 'draining' | 'stalled' | 'failed' | 'closed'

const LEGAL_MOVES: Record<ServerState, readonly ServerState[]> = {
  starting: ['ready', 'draining', 'failed'],
  ready: ['draining', 'stalled', 'failed'],
  // A server that lost its workers may get them back.
  failed: ['ready', 'draining'],
  draining: ['stalled', 'closed'],
  // What computes does not come back: it can only end.
  stalled: ['closed'],
  closed: [],
}

export class Lifecycle {
  #state: ServerState = 'starting'

  get state(): ServerState {
    return this.#state
  }

  /** Moves to `next`; a move that the table does not list is a bug. */
  move(next: ServerState): void {
    if (this.#state === next) return
    if (!LEGAL_MOVES[this.#state].includes(next))
      throw new Error(`illegal move from ${this.#state} to ${next}`)
    this.#state = next
  }
}

/**
 * Waits for `work`, at most `timeoutMs`.
 * @throws OnecopyError TIMEOUT that names what was waited for.
 */
export async function withDeadline<T>(work: Promise<T>, timeoutMs: number, waitedFor: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new OnecopyError('TIMEOUT', `waited ${formatMs(timeoutMs)} for ${waitedFor}`))
    }, timeoutMs)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
