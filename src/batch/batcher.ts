/**
 * Keeps the inference thread busy and fair. While it computes one batch, compatible requests are collected
 * for the next. An idle thread starts immediately, so a lone request never waits. Among models, the one with
 * the least compute time so far goes first (start-time fair queueing: Goyal, Vin, Cheng, 1997), so heavy load
 * on one model does not starve another.
 *
 * The next batch is submitted before the results of the last are delivered: encoding responses can take as
 * long as a small model computes, and the thread would otherwise be idle.
 */
import { OnecopyError } from '../errors.js'
import type { ExecutionTimes } from '../metrics/recorder.js'
import { monotonicNs } from '../process/clock.js'
import type { Tensor } from '../tensor.js'
import { Entry } from './admission.js'
import { concatenate, split } from './concat.js'
import { Deliveries } from './deliveries.js'
import { type Execution, type Job, type JobResult, jointLimit, type Run } from './job.js'
import { type BatchingPolicy, QueuedModel } from './queued-model.js'

/** The batch in execution and the next one. */
const MAX_EXECUTING = 2
/**
 * Maximum size of the inputs of one execution: a batch is copied, and its activations are a multiple of it.
 */
const MAX_BATCH_BYTES = 64 * 1024 * 1024

const LINGER_SHARE = 0.1
const SHORTEST_LINGER_MS = 1
const LONGEST_LINGER_MS = 5

export interface BatcherOptions {
  readonly run: Run
  /** Whether the server has a single request, and no other client is active. */
  readonly isAlone?: () => boolean
  /** Called after every execution. */
  readonly onExecution?: (execution: { modelKey: string; rows: number; times: ExecutionTimes }) => void
  /** Longest wait for clients that just got a response, in milliseconds. */
  readonly longestLingerMs?: number
  /** A model was treated as batchable, and its outputs show that it is not. */
  readonly onUnbatchable?: (modelKey: string) => void
}

/** The result of one request of an execution. */
interface Computed {
  readonly outputs: readonly Tensor[]
  readonly times: ExecutionTimes
}

/** A pooled job is already a batch: no other job joins it. Other jobs wait until the engine is idle. */
function isHandedOverEarly(entry: Entry | undefined): boolean {
  return entry?.job.pooling !== undefined
}

function settle(batch: readonly Entry[], results: readonly (Computed | Error)[], startedNs: number): void {
  for (const [i, entry] of batch.entries()) {
    const result = results[i] as Computed | Error
    if (result instanceof Error) entry.reject(result)
    else entry.resolve(result, startedNs)
  }
}

export class Batcher {
  readonly #options: BatcherOptions
  readonly #models = new Map<string, QueuedModel>()
  /** Batches that the engine has. */
  readonly #executing = new Set<readonly Entry[]>()
  readonly #deliveries = new Deliveries()
  #isShut = false
  /** The error for every request once the thread has stalled. */
  #abandonedFor: OnecopyError | null = null
  #isPumpDue = false
  #delayTimer: NodeJS.Timeout | undefined
  #lingering: { model: QueuedModel; wantedRows: number; timer: NodeJS.Timeout } | undefined
  /** Virtual time of the model that ran last. A model whose queue was empty joins here. */
  #clockNs = 0

  constructor(options: BatcherOptions) {
    this.#options = options
  }

  add(modelKey: string, policy: BatchingPolicy): void {
    this.#models.set(modelKey, new QueuedModel(modelKey, policy))
  }

  /** Removes a model that gets no more requests. */
  remove(modelKey: string): void {
    this.#models.delete(modelKey)
  }

  /** Rejects the queued requests of a model with `error`; the running execution is completed. */
  refuseWaiting(modelKey: string, error: OnecopyError): void {
    this.#models.get(modelKey)?.queue.rejectAll(error)
  }

  /** Number of queued requests over all models, without those in the running execution. */
  get depth(): number {
    let depth = 0
    for (const { queue } of this.#models.values()) depth += queue.length
    return depth
  }

  /**
   * Rejects a request that could not be queued, before its body is read. `inputBytes` is a lower bound for
   * its inputs, as far as the headers tell.
   * @throws OnecopyError SHUTTING_DOWN, WORKER_STALLED, QUEUE_FULL, REQUEST_TOO_LARGE.
   */
  checkCapacity(modelKey: string, inputBytes = 0): void {
    if (this.#abandonedFor !== null) throw this.#abandonedFor
    if (this.#isShut)
      throw new OnecopyError('SHUTTING_DOWN', 'the server is shutting down', { retryAfterSeconds: 1 })
    this.#modelOf(modelKey).queue.checkCapacity(inputBytes)
  }

  /**
   * Queues a job and settles with its result.
   * @throws OnecopyError QUEUE_FULL, REQUEST_TOO_LARGE, SHUTTING_DOWN, REQUEST_CANCELLED, DEADLINE_EXCEEDED,
   *   and the errors of `run`.
   */
  submit(job: Job): Promise<JobResult> {
    return new Promise((resolve, reject) => {
      const model = this.#modelOf(job.modelKey)
      this.checkCapacity(job.modelKey)
      if (model.queue.length === 0) model.virtualNs = Math.max(model.virtualNs, this.#clockNs)
      const { optionalInputs } = model.policy
      const isPlain = optionalInputs === undefined || !job.inputs.some(({ name }) => optionalInputs.has(name))
      const entry = new Entry(job, model.isBatchable && isPlain, resolve, reject)
      model.queue.push(entry)
      const lingering = this.#lingering
      if (lingering === undefined) this.#pumpSoon(entry)
      else if (model !== lingering.model || model.queue.compatibleRows() >= lingering.wantedRows)
        this.#endLinger()
    })
  }

  get #isAlone(): boolean {
    return this.#options.isAlone?.() ?? false
  }

  #modelOf(modelKey: string): QueuedModel {
    const model = this.#models.get(modelKey)
    if (model === undefined) throw new OnecopyError('MODEL_NOT_READY', `model ${modelKey} is not loaded`)
    return model
  }

  /** Runs after all requests that have already arrived are read, so that they share a batch. */
  #pumpSoon(entry?: Entry): void {
    // The end of an execution pumps in any case.
    if (this.#executing.size > 0 && !isHandedOverEarly(entry)) return
    if (this.#isPumpDue) return
    // No other request is expected in this turn, and another turn of the event loop adds latency.
    if (this.#isAlone) {
      this.#pump()
      return
    }
    this.#isPumpDue = true
    setImmediate(() => {
      this.#isPumpDue = false
      this.#pump()
    })
  }

  #pump(): void {
    const isFull = this.#executing.size >= MAX_EXECUTING
    if (isFull || this.#lingering !== undefined || this.#abandonedFor !== null) return
    const model = this.#nextModel()
    if (model === undefined || (this.#executing.size > 0 && !isHandedOverEarly(model.queue.head))) return
    clearTimeout(this.#delayTimer)
    const batch = model.queue.takeBatch(model.batchRows(), MAX_BATCH_BYTES)
    this.#clockNs = model.virtualNs
    void this.#execute(model, batch)
    this.#pump()
  }

  /** The model with the least compute time among those with requests to run now. */
  #nextModel(): QueuedModel | undefined {
    let next: QueuedModel | undefined
    let waitMs = Number.POSITIVE_INFINITY
    for (const model of this.#models.values()) {
      model.queue.dropCancelled()
      if (model.queue.length === 0) continue
      const modelWaitMs = this.#isShut ? 0 : model.companyWaitMs()
      if (modelWaitMs > 0) waitMs = Math.min(waitMs, modelWaitMs)
      else if (next === undefined || model.virtualNs < next.virtualNs) next = model
    }
    if (next === undefined && Number.isFinite(waitMs)) {
      clearTimeout(this.#delayTimer)
      this.#delayTimer = setTimeout(() => this.#pump(), waitMs)
    }
    return next
  }

  async #execute(model: QueuedModel, batch: readonly Entry[]): Promise<void> {
    const startedNs = monotonicNs()
    this.#executing.add(batch)
    let results: (Computed | Error)[]
    try {
      results = await this.#runTogether(model, batch, startedNs)
    } catch (thrown) {
      // A bug, not a failed model: every request of the batch fails.
      results = batch.map(() => thrown as Error)
    }
    this.#executing.delete(batch)
    const isLingering = this.#executing.size === 0 && this.#linger(model, batch)
    if (!isLingering) this.#pump()
    const isLast = this.#executing.size === 0
    this.#deliveries.add(() => settle(batch, results, startedNs), { startedNs, isLast })
  }

  /**
   * A model that reads all its weights for every batch gains much from a fuller one, and clients that just
   * got a response often send again immediately. So if larger batches are known to pay off, the thread waits
   * for them for a tenth of the time of the last batch. A request to an idle thread never waits, nor does a
   * request for another model or a small model. Returns whether it waits.
   */
  #linger(model: QueuedModel, batch: readonly Entry[]): boolean {
    const { longestLingerMs = LONGEST_LINGER_MS } = this.#options
    const lingerMs = Math.min((model.lastComputeNs / 1e6) * LINGER_SHARE, longestLingerMs)
    if (lingerMs < SHORTEST_LINGER_MS || !model.isBatchable || this.#isShut) return false
    for (const other of this.#models.values()) if (other !== model && other.queue.length > 0) return false
    const waiting = model.queue.compatibleRows()
    const returning = batch.reduce((rows, entry) => rows + (entry.rows ?? 0), 0)
    const wanted = Math.min(waiting + returning, model.tuner.limit)
    if (waiting === 0 || waiting >= wanted || !model.tuner.isWorthWaiting(waiting, wanted)) return false
    this.#lingering = { model, wantedRows: wanted, timer: setTimeout(() => this.#endLinger(), lingerMs) }
    return true
  }

  #endLinger(): void {
    clearTimeout(this.#lingering?.timer)
    this.#lingering = undefined
    this.#pump()
  }

  async #runTogether(
    model: QueuedModel,
    batch: readonly Entry[],
    beganNs: number,
  ): Promise<(Computed | Error)[]> {
    const [first] = batch
    if (first === undefined) return []
    if (batch.length === 1) return [await this.#runAlone(model, first, beganNs)]
    const rowCounts = batch.map((entry) => entry.rows as number)
    const rows = rowCounts.reduce((sum, count) => sum + count, 0)
    const inputs = concatenate(
      batch.map((entry) => entry.job.inputs),
      rows,
    )
    const inputBytes = batch.reduce((sum, { bytes }) => sum + bytes, 0)
    let isTooLarge = false
    try {
      const { outputNames } = first.job
      const outputLimit = jointLimit(batch.map(({ job }) => job))
      const { outputs, times } = await this.#run(model, {
        ...{ inputs, inputBytes, outputNames, outputLimit, pooling: null, rows, beganNs },
        measuresCpu: batch.some(({ job }) => job.measuresCpu === true),
      })
      const parts = split(outputs, rowCounts, rows)
      if (parts !== null) return parts.map((part) => ({ outputs: part, times }))
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError)) throw thrown
      isTooLarge = thrown.code === 'RESPONSE_TOO_LARGE'
    }
    // Either one request makes the batch fail, or the model cannot be batched: each request runs alone.
    const results: (Computed | Error)[] = []
    for (const entry of batch) results.push(await this.#runAlone(model, entry, monotonicNs()))
    const isModelAtFault = !isTooLarge && results.every((result) => !(result instanceof Error))
    if (isModelAtFault) {
      model.isBatchable = false
      this.#options.onUnbatchable?.(model.modelKey)
    }
    return results
  }

  async #runAlone(
    model: QueuedModel,
    { job, rows, bytes }: Entry,
    beganNs: number,
  ): Promise<Computed | Error> {
    const { inputs, outputNames, outputLimit = null, pooling = null, measuresCpu = false } = job
    try {
      return await this.#run(model, {
        inputs,
        inputBytes: bytes,
        outputNames,
        outputLimit,
        pooling,
        measuresCpu,
        rows: rows ?? 1,
        beganNs,
      })
    } catch (thrown) {
      return thrown as Error
    }
  }

  async #run(
    model: QueuedModel,
    execution: Omit<Execution, 'modelKey' | 'isAlone'> & {
      rows: number
      /** Start of collecting its inputs. */
      beganNs: number
    },
  ): Promise<Computed> {
    const { modelKey } = model
    const { inputs, inputBytes, outputNames, outputLimit, pooling, measuresCpu, rows, beganNs } = execution
    // Without rest and spread: this runs for every request, and they copy member by member.
    const run = this.#options.run({
      modelKey,
      inputs,
      inputBytes,
      outputNames,
      outputLimit,
      pooling,
      measuresCpu,
      isAlone: this.#isAlone,
    })
    const { outputs, startedNs, computeNs, cpuNs, placement } = await run
    const times = {
      inputNs: Math.max(0, startedNs - beganNs),
      inferNs: computeNs,
      cpuNs,
      outputNs: Math.max(0, monotonicNs() - startedNs - computeNs),
      placement,
    }
    model.virtualNs += computeNs
    model.lastComputeNs = computeNs
    model.tuner.record(rows, computeNs)
    this.#options.onExecution?.({ modelKey, rows, times })
    return { outputs, times }
  }

  /** Rejects running, queued and later requests with `error`, without waiting for the thread. */
  abandon(error: OnecopyError): void {
    this.#abandonedFor = error
    clearTimeout(this.#delayTimer)
    clearTimeout(this.#lingering?.timer)
    this.#lingering = undefined
    for (const batch of this.#executing) for (const entry of batch) entry.reject(error)
    for (const { queue } of this.#models.values()) queue.rejectAll(error)
  }

  /** Rejects new requests; queued ones still run. */
  shut(): void {
    this.#isShut = true
    if (this.#lingering !== undefined) this.#endLinger()
    this.#pumpSoon()
  }
}
