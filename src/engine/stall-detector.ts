/** Pings the inference thread at intervals, and reports a stall if it does not answer for too long. */

const INTERVAL_MS = 500
/**
 * The most that a pause between two checks counts as silence. After a longer pause this process itself was
 * suspended (stopped or frozen with its container), and so was its thread.
 */
const LONGEST_LOOK_MS = 2 * INTERVAL_MS

export interface StallDetectorOptions {
  /** Resolves when the thread has answered; rejects when it has ended. */
  readonly ping: () => Promise<void>
  readonly stallTimeoutMs: number
  /** Called once. The thread may still recover. */
  readonly onStall: (silentMs: number) => void
}

/** Returns a function that stops the checks. */
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
      // The end of the thread is reported elsewhere.
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
