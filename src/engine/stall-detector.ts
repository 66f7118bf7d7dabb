/** Pings the inference thread at intervals, and reports a stall if it does not answer for too long. */

const INTERVAL_MS = 500
/**
 * At most this much of a pause between two checks counts. In a longer one this process did not run (it was stopped, or
 * its container frozen), and neither did its thread.
 */
const LONGEST_LOOK_MS = 2 * INTERVAL_MS

export interface StallDetectorOptions {
  /** Resolves when the thread has come round to answering; rejects when it is gone. */
  readonly ping: () => Promise<void>
  readonly stallTimeoutMs: number
  /** Called once. The thread may still come back. */
  readonly onStall: (silentMs: number) => void
}

/** Returns what ends the watch. */
export function detectStall({ ping, stallTimeoutMs, onStall }: StallDetectorOptions): () => void {
  let isAsked = false
  let silentMs = 0
  let lookedAtMs = performance.now()
  const ask = () => {
    isAsked = true
    silentMs = 0
    ping().then(
      () => {
        isAsked = false
      },
      // A thread that is gone is reported by its end.
      () => clearInterval(timer),
    )
  }
  const look = () => {
    const nowMs = performance.now()
    silentMs += Math.min(nowMs - lookedAtMs, LONGEST_LOOK_MS)
    lookedAtMs = nowMs
    if (!isAsked) ask()
    else if (silentMs > stallTimeoutMs) {
      clearInterval(timer)
      onStall(silentMs)
    }
  }
  const timer = setInterval(look, INTERVAL_MS).unref()
  ask()
  return () => clearInterval(timer)
}
