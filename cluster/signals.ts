/** Termination signals of the primary: the first asks for an orderly end, a second one ends at once. */

/**
 * One Ctrl-C under npm reaches the process twice, from the terminal and from npm. Copies that arrive
 * within this time are the same wish.
 */
const SAME_WISH_MS = 100

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
