/**
 * Loaded models of one thread. The inference thread has one of these, and the event loop has one
 * for models that are cheap to run. `load` and `run` block the thread that calls them.
 */
import { messageOf, OnecopyError } from '../errors.js'
import { RunningModel, type RunningModelCell } from '../metrics/recorder.js'
import { PROCESS_CELL_COUNT } from '../metrics/series.js'
import { leastBytes, responseTooLarge } from '../protocol/v2/response-size.js'
import { Session } from '../runtime/session.js'
import type { OutputLimit, Tensor } from '../tensor.js'
import { poolTokens } from '../token-pooling.js'
import type { LoadRequest, Ran, RunRequest } from './messages.js'

interface Loaded {
  readonly session: Session
  /** Identifies the model version in the stats pages. */
  readonly number: number
}

/**
 * Frees outputs that are too large for a response; otherwise they stay until the next garbage
 * collection.
 */
function checkSize(outputs: readonly Tensor[], limit: OutputLimit | null): void {
  if (limit === null) return
  const bytes = leastBytes(outputs, limit.leastElementBytes)
  if (bytes <= limit.bytes) return
  setImmediate(() => globalThis.gc?.())
  throw responseTooLarge({ maxBytes: limit.bytes, bytes, isExact: false, outputs })
}

export class Sessions {
  readonly #cell: RunningModelCell
  readonly #loaded = new Map<string, Loaded>()
  /** In private memory until `reportTo` sets the shared cell. */
  #running: RunningModel

  /** `cell` is where this thread records the model that its runtime is running. */
  constructor(cell: RunningModelCell) {
    this.#cell = cell
    this.#running = new RunningModel(new Float64Array(PROCESS_CELL_COUNT), cell)
  }

  reportTo(cells: Float64Array): void {
    this.#running = new RunningModel(cells, this.#cell)
  }

  has(modelKey: string): boolean {
    return this.#loaded.has(modelKey)
  }

  /**
   * Returns how long the runtime took, in milliseconds.
   * @throws OnecopyError MODEL_UNSUPPORTED with the message of the runtime.
   */
  load(request: LoadRequest): number {
    const { modelKey, number } = request
    const startedMs = performance.now()
    try {
      const session = this.#running.during({ number, isLoading: true }, () => Session.load(request))
      this.#loaded.set(modelKey, { session, number })
      return performance.now() - startedMs
    } catch (thrown) {
      throw new OnecopyError('MODEL_UNSUPPORTED', `the runtime cannot load ${modelKey}: ${messageOf(thrown)}`)
    }
  }

  /** @throws OnecopyError MODEL_RUN_FAILED, MODEL_NOT_READY, RESPONSE_TOO_LARGE. */
  run(request: RunRequest): Ran {
    const { modelKey, inputs, outputNames, outputLimit, pooling, measuresCpu, isProving } = request
    const loaded = this.#loaded.get(modelKey)
    if (loaded === undefined) throw new OnecopyError('MODEL_NOT_READY', `model ${modelKey} is not loaded`)
    const { session, number } = loaded
    const before = measuresCpu ? process.cpuUsage() : null
    const { outputs, startedNs, computeNs } = this.#running.during({ number, isLoading: isProving }, () =>
      session.run(inputs, outputNames),
    )
    checkSize(outputs, outputLimit)
    const cpu = before === null ? null : process.cpuUsage(before)
    const kept = pooling === null ? outputs : outputs.map((output) => poolTokens(output, pooling))
    const ran = { outputs: kept, startedNs, computeNs }
    return cpu === null ? ran : { ...ran, cpuNs: (cpu.user + cpu.system) * 1000 }
  }

  unload(modelKey: string): void {
    this.#loaded.get(modelKey)?.session.close()
    this.#loaded.delete(modelKey)
  }

  close(): void {
    for (const { session } of this.#loaded.values()) session.close()
    this.#loaded.clear()
  }
}
