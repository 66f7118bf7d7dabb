/**
 * Lag of the event loop: p99 over the last 5 to 10 seconds. A native timer samples it
 * every 10 ms. The timer would wake an idle process a hundred times a second, at the expense of the
 * others on its CPU, so it runs only while the event loop has work.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'

const SAMPLE_MS = 10
const WINDOW_MS = 5000
/** Regular timers take up to 2% of an idle event loop. */
const MAX_IDLE_SHARE = 0.05

export class LoopLag {
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: SAMPLE_MS })
  #isSampling = false
  #utilization = performance.eventLoopUtilization()
  #windowStartMs = performance.now()
  /** When the event loop last had work. */
  #busyAtMs = Number.NEGATIVE_INFINITY
  #lastWindowMs = 0

  /** The lag in milliseconds. Call it several times a second, from a timer. */
  measure(): number {
    const nowMs = performance.now()
    this.#sampleWhileBusy(nowMs)
    const lagMs = this.#sampledMs()
    const worstMs = Math.max(lagMs, this.#lastWindowMs)
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#windowStartMs = nowMs
      this.#lastWindowMs = lagMs
      this.#histogram.reset()
    }
    return worstMs
  }

  #sampleWhileBusy(nowMs: number): void {
    const now = performance.eventLoopUtilization()
    if (performance.eventLoopUtilization(now, this.#utilization).utilization > MAX_IDLE_SHARE)
      this.#busyAtMs = nowMs
    this.#utilization = now
    const isBusy = nowMs - this.#busyAtMs < WINDOW_MS
    if (isBusy === this.#isSampling) return
    this.#isSampling = isBusy
    if (isBusy) this.#histogram.enable()
    else this.#histogram.disable()
  }

  /** A sample is the time between two ticks of a timer: the excess over its interval is lag. */
  #sampledMs(): number {
    const lagMs = this.#histogram.percentile(99) / 1e6 - SAMPLE_MS
    return Number.isFinite(lagMs) ? Math.max(0, lagMs) : 0
  }

  close(): void {
    this.#histogram.disable()
  }
}
