/** Pings the inference thread at intervals, and reports a stall if it does not answer for too long. */

const INTERVAL_MS = 500
/**
 * The most that a pause between two checks counts as silence. After a longer pause this process itself was
 * suspended (stopped or frozen with its container), and so was its thread.
 */
const MAX_CHECK_GAP_MS = 2 * INTERVAL_MS

export interface StallDetectorOptions {
  /** Resolves when the thread has answered; rejects when it has ended. */
  readonly ping: () => Promise<void>
  readonly stallTimeoutMs: number
  /** Called once. The thread may still recover. */
  readonly onStall: (silentMs: number) => void
}

/** Returns a function that stops the checks. */
export function detectStall({ ping, stallTimeoutMs, onStall }: StallDetectorOptions): () => void {
  let isPinging = false
  let silentMs = 0
  let checkedAtMs = performance.now()
  const sendPing = () => {
    isPinging = true
    silentMs = 0
    ping().then(
      () => {
        isPinging = false
      },
      // The end of the thread is reported elsewhere.
      () => clearInterval(timer),
    )
  }
  const check = () => {
    const nowMs = performance.now()
    silentMs += Math.min(nowMs - checkedAtMs, MAX_CHECK_GAP_MS)
    checkedAtMs = nowMs
    if (!isPinging) sendPing()
    else if (silentMs > stallTimeoutMs) {
      clearInterval(timer)
      onStall(silentMs)
    }
  }
  const timer = setInterval(check, INTERVAL_MS).unref()
  sendPing()
  return () => clearInterval(timer)
}
