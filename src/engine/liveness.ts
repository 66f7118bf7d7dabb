/**
 * Liveness of a serving process. Its event loop writes a heartbeat to the stats page, which the primary
 * reads. Its inference thread answers pings of the event loop, and counts as stalled if it does not for too
 * long.
 */
import { OnecopyError } from '../errors.js'
import type { ProcessRecorder } from '../metrics/recorder.js'
import { formatMs } from '../units.js'
import type { Engine } from './engine.js'
import { detectStall } from './stall-detector.js'

/** Interval at which the process reports its heartbeat and queue depth. */
const BEAT_INTERVAL_MS = 100
/** About as long as a replacement takes to start. */
const STALL_RETRY_SECONDS = 1

export interface LivenessOptions {
  readonly engine: Pick<Engine, 'ping' | 'isBusy'>
  readonly self: ProcessRecorder
  readonly queueDepth: () => number
  readonly stallTimeoutMs: number
  /** The thread has stalled: the caller answers the requests that wait for it. */
  readonly onStall: (failure: OnecopyError, silentMs: number) => void
}

export class LivenessReporter {
  readonly #options: LivenessOptions
  /** Resolves when the thread is declared stalled. */
  readonly stalled: Promise<void>
  #abandon: () => void = () => {}
  #beatTimer: NodeJS.Timeout | undefined
  #endThreadWatch: () => void = () => {}

  constructor(options: LivenessOptions) {
    this.#options = options
    this.stalled = new Promise((resolve) => {
      this.#abandon = resolve
    })
  }

  start(): void {
    const { engine, self, queueDepth, stallTimeoutMs } = this.#options
    const beat = () => self.beat(queueDepth())
    beat()
    this.#beatTimer = setInterval(beat, BEAT_INTERVAL_MS).unref()
    this.#endThreadWatch = detectStall({
      // A thread without work need not be woken: no request waits for it.
      ping: () => (engine.isBusy ? engine.ping() : Promise.resolve()),
      stallTimeoutMs,
      onStall: (silentMs) => this.#onStall(silentMs),
    })
  }

  #onStall(silentMs: number): void {
    const { stallTimeoutMs, onStall } = this.#options
    this.#abandon()
    onStall(
      new OnecopyError(
        'WORKER_STALLED',
        `the inference thread has been silent for ${formatMs(Math.round(silentMs))} (--stall-timeout ${formatMs(stallTimeoutMs)}): its worker is being replaced`,
        { retryAfterSeconds: STALL_RETRY_SECONDS },
      ),
      silentMs,
    )
  }

  /** The thread is closed and no longer has to answer. */
  endThreadWatch(): void {
    this.#endThreadWatch()
  }

  close(): void {
    this.#endThreadWatch()
    clearInterval(this.#beatTimer)
    this.#options.self.close()
  }
}
