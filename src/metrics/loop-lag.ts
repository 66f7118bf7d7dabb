/**
 * Lag of the event loop: p99 over the last 5 to 10 seconds. A timer outside JavaScript samples it
 * every 10 ms. The timer would wake an idle process a hundred times a second, at the expense of the
 * others on its CPU, so it runs only while the event loop has work. Otherwise the regular calls of
 * `measure` are the samples: a late one shows that something has blocked the event loop.
 */
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'

const SAMPLE_MS = 10
const WINDOW_MS = 5000
/** Regular timers take up to 2% of an idle event loop. */
const MAX_IDLE_SHARE = 0.05

export class LoopLag {
  readonly #intervalMs: number
  readonly #histogram: IntervalHistogram = monitorEventLoopDelay({ resolution: SAMPLE_MS })
  #isSampling = false
  #utilization = performance.eventLoopUtilization()
  #measuredAtMs = performance.now()
  #windowStartMs = this.#measuredAtMs
  /** When the event loop last had work. */
  #busyAtMs = Number.NEGATIVE_INFINITY
  #worstLateMs = 0
  #lastWindowMs = 0

  /** @param intervalMs Interval at which `measure` is called. */
  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs
  }

  /** The lag in milliseconds. Call it at the interval, from a timer. */
  measure(): number {
    const nowMs = performance.now()
    const lateMs = nowMs - this.#measuredAtMs - this.#intervalMs
    this.#measuredAtMs = nowMs
    if (!this.#isSampling) this.#worstLateMs = Math.max(this.#worstLateMs, lateMs)
    this.#sampleWhileBusy(nowMs)
    const lagMs = Math.max(this.#sampledMs(), this.#worstLateMs)
    const worstMs = Math.max(lagMs, this.#lastWindowMs)
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#windowStartMs = nowMs
      this.#lastWindowMs = lagMs
      this.#worstLateMs = 0
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
