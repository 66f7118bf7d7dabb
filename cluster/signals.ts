/** Signals of the primary: the first to terminate asks for an orderly end, a second one ends at once; SIGHUP restarts. */

import { constants } from 'node:os'
import { isatty } from 'node:tty'

const STDIN = 0
/**
 * One Ctrl-C under npm reaches the process twice, from the terminal and from npm. Copies that arrive
 * within this time are the same wish.
 */
export const SAME_WISH_MS = 100

export interface TerminationHandlers {
  readonly onFirst: (signal: NodeJS.Signals) => void
  readonly onSecond: (signal: NodeJS.Signals) => void
}

export function onTermination(handlers: TerminationHandlers): void {
  let firstMs: number | undefined
  const handle = (signal: NodeJS.Signals) => {
    const nowMs = performance.now()
    if (firstMs === undefined) {
      firstMs = nowMs
      handlers.onFirst(signal)
    } else if (nowMs - firstMs > SAME_WISH_MS) handlers.onSecond(signal)
  }
  process.on('SIGTERM', handle)
  process.on('SIGINT', handle)
}

/**
 * `kill -HUP` asks for fresh workers. The same signal comes when the terminal that the server was started in is
 * closed; nobody could stop it there any more, so it ends.
 */
export function onHangUp(handlers: {
  readonly onAsked: () => void
  readonly onTerminalGone: () => void
}): void {
  const hadTerminal = isatty(STDIN)
  process.on('SIGHUP', () => {
    if (hadTerminal && !isatty(STDIN)) handlers.onTerminalGone()
    else handlers.onAsked()
  })
}

/** By convention 128 + the number of the signal. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}
