/**
 * Batches sequences of different lengths and of different requests. Sequences wait while a batch is computed. The next
 * batch has the oldest sequence and those closest to it in length (batch-selection.ts). The size of a batch and its
 * share of padding are learnt from execution times.
 *
 * Its batches go through the queue of the model, which is fair between models. The queue may hold the next batch while
 * one is computed, so that the inference thread never waits for the event loop.
 */
import { OnecopyError } from '../errors.js'
import { floatsOf, type Tensor } from '../tensor.js'
import type { TokenPooling } from '../token-pooling.js'
import { selectBatch } from './batch-selection.js'
import { BatchSizes } from './batch-sizes.js'
import { CostModel } from './cost-model.js'
import { paddedInputs, poolingOf, type Sequence, type TextInterface } from './interface.js'

/** Oldest sequences of the queue that are considered for a batch. */
const LOOK_AHEAD = 1024
/** Clients with a new response usually send again: the batcher waits for this share of the last execution. */
const LINGER_SHARE = 0.1
const SHORTEST_LINGER_MS = 0.5
/** The batch in execution and the next one. */
const MAX_SUBMITTED = 2
const LONGEST_LINGER_MS = 5

/** One row of the first output of a batch. */
export interface RowOfBatch {
  readonly data: Float32Array
  /** Of one row: [hidden] after pooling, [sequence, classes], or [classes]. */
  readonly shape: readonly number[]
  /** Tokens of the sequence itself. */
  readonly length: number
}

export type RunBatch = (job: {
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  readonly pooling?: TokenPooling
  readonly isCancelled: () => boolean
}) => Promise<{ readonly outputs: readonly Tensor[]; readonly computeNs: number }>

export interface LengthBatcherOptions {
  readonly textInterface: TextInterface
  readonly paddingId: number
  readonly maxRows: number
  /** Padding included. */
  readonly maxTokens: number
  /** Longest queue, in requests. */
  readonly maxRequests: number
  /** Longest queue, in bytes of ids. */
  readonly maxBytes: number
  /** Whether a batch may have more than one sequence. */
  readonly isBatchable: boolean
  /** Whether a row's result does not depend on its padding. */
  readonly isPaddable: boolean
  readonly run: RunBatch
}

export interface RunSequencesOptions {
  readonly isCancelled: () => boolean
}

interface Output {
  readonly floats: Float32Array
  readonly shape: readonly number[]
}

/** A request in flight. */
interface Request {
  readonly sequences: readonly Sequence[]
  readonly take: (row: RowOfBatch, place: number) => void
  readonly isCancelled: () => boolean
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
  bytes: number
  left: number
  isSettled: boolean
}

interface Row {
  readonly request: Request
  readonly place: number
  readonly sequence: Sequence
}

export class LengthBatcher {
  readonly #options: LengthBatcherOptions
  readonly #sizes: BatchSizes
  readonly #costs = new CostModel()
  readonly #rows: Row[] = []
  readonly #requests = new Set<Request>()
  #bytes = 0
  /** Batches in the model's queue or in execution. */
  #submitted = 0
  #isPumpDue = false
  #lastComputeMs = 0
  #linger: { readonly rows: number; readonly timer: NodeJS.Timeout } | null = null

  constructor(options: LengthBatcherOptions) {
    this.#options = options
    this.#sizes = new BatchSizes(options)
  }

  /**
   * Computes sequences and hands each one's row to `take`, in no particular order, before it resolves.
   * @throws OnecopyError QUEUE_FULL, REQUEST_TOO_LARGE, REQUEST_CANCELLED, and of the model's queue and run.
   */
  run(
    sequences: readonly Sequence[],
    take: Request['take'],
    { isCancelled }: RunSequencesOptions,
  ): Promise<void> {
    const bytes = 8 * sequences.reduce((sum, { ids }) => sum + ids.length, 0)
    this.#checkCapacity(bytes)
    return new Promise((resolve, reject) => {
      if (sequences.length === 0) {
        resolve()
        return
      }
      const request: Request = {
        ...{ sequences, take, isCancelled, resolve, reject, bytes },
        ...{ left: sequences.length, isSettled: false },
      }
      this.#requests.add(request)
      this.#bytes += bytes
      for (const [place, sequence] of sequences.entries()) this.#rows.push({ request, place, sequence })
      if (this.#linger === null) this.#pumpSoon()
      else if (this.#rows.length >= this.#linger.rows) this.#endLinger()
    })
  }

  #checkCapacity(bytes: number): void {
    const { maxRequests, maxBytes } = this.#options
    if (bytes > maxBytes)
      throw new OnecopyError(
        'REQUEST_TOO_LARGE',
        `expected at most ${maxBytes} bytes of token ids, as much as the model's queue may hold (max_queue_bytes), got ${bytes}`,
      )
    if (this.#requests.size < maxRequests && this.#bytes + bytes <= maxBytes) return
    throw new OnecopyError(
      'QUEUE_FULL',
      `the queue is full: ${this.#requests.size} requests with ${this.#bytes} bytes of token ids are queued`,
      { retryAfterSeconds: 1 },
    )
  }

  /** Runs after all requests of this turn of the event loop have arrived. */
  #pumpSoon(): void {
    if (this.#submitted >= MAX_SUBMITTED || this.#isPumpDue || this.#linger !== null) return
    this.#isPumpDue = true
    setImmediate(() => {
      this.#isPumpDue = false
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#submitted >= MAX_SUBMITTED || this.#linger !== null) return
    this.#dropCancelled()
    if (this.#submitted > 0 && !this.#isNextFull) return
    const batch = this.#nextBatch()
    if (batch.length === 0) return
    this.#submitted++
    void this.#execute(batch)
    this.#pump()
  }

  /** Waits for a larger batch if sequences are in the queue and a larger batch is faster, or not measured yet. */
  #lingerFor(batch: readonly Row[]): boolean {
    const waiting = this.#rows.length
    const lingerMs = Math.min(this.#lastComputeMs * LINGER_SHARE, LONGEST_LINGER_MS)
    if (!this.#options.isBatchable || waiting === 0 || lingerMs < SHORTEST_LINGER_MS) return false
    const length = Math.max(...this.#rows.slice(0, LOOK_AHEAD).map(({ sequence }) => sequence.ids.length))
    const rows = Math.min(waiting + batch.length, this.#sizes.maxRows(length))
    if (waiting >= rows || !this.#sizes.isWorthWaiting({ length, fewer: waiting, more: rows })) return false
    this.#linger = { rows, timer: setTimeout(() => this.#endLinger(), lingerMs) }
    return true
  }

  #endLinger(): void {
    clearTimeout(this.#linger?.timer)
    this.#linger = null
    this.#pump()
  }

  /** Whether the queue has enough sequences for the largest next batch. */
  get #isNextFull(): boolean {
    const [oldest] = this.#rows
    if (oldest === undefined) return false
    const { isBatchable } = this.#options
    return !isBatchable || this.#rows.length >= this.#sizes.maxRows(oldest.sequence.ids.length)
  }

  #dropCancelled(): void {
    for (const request of this.#requests)
      if (request.isCancelled())
        this.#fail(
          request,
          new OnecopyError('REQUEST_CANCELLED', 'the client disconnected before its request ran'),
        )
    for (let at = this.#rows.length - 1; at >= 0; at--)
      if (this.#rows[at]?.request.isSettled) this.#rows.splice(at, 1)
  }

  #nextBatch(): Row[] {
    const { isBatchable, isPaddable } = this.#options
    const rows = this.#rows.slice(0, LOOK_AHEAD)
    if (rows.length === 0) return []
    const places = selectBatch(
      rows.map(({ sequence }) => sequence.ids.length),
      {
        maxRows: isBatchable ? (length) => this.#sizes.maxRows(length) : () => 1,
        maxPaddingTokens: isPaddable ? (tokens) => this.#costs.maxPaddingTokens(tokens) : () => 0,
      },
    )
    const chosen = new Set(places)
    this.#rows.splice(0, rows.length, ...rows.filter((_, place) => !chosen.has(place)))
    return places.map((place) => rows[place] as Row)
  }

  async #execute(batch: readonly Row[]): Promise<void> {
    const results = await this.#computeOrFail(batch)
    this.#submitted--
    // Starts the next batch before it hands out results, unless it waits for the clients of this batch.
    if (this.#submitted > 0 || !this.#lingerFor(batch)) this.#pump()
    for (const [at, row] of batch.entries()) {
      const result = results[at]
      if (result instanceof Failure) this.#fail(row.request, result.cause)
      else if (result !== undefined) this.#give(row, result)
    }
  }

  async #computeOrFail(batch: readonly Row[]): Promise<(RowOfBatch | Failure)[]> {
    try {
      const output = await this.#compute(batch)
      return batch.map(({ sequence }, at) => rowOf(output, at, sequence.ids.length))
    } catch (thrown) {
      if (batch.length === 1 || isRefusal(thrown)) return batch.map(() => new Failure(thrown))
      // One sequence may fail the whole batch: each runs alone.
      const results: (RowOfBatch | Failure)[] = []
      for (const row of batch) results.push(...(await this.#computeOrFail([row])))
      return results
    }
  }

  async #compute(batch: readonly Row[]): Promise<Output> {
    const { textInterface, paddingId, run } = this.#options
    const sequences = batch.map(({ sequence }) => sequence)
    const inputs = paddedInputs(textInterface, sequences, paddingId)
    const [rows = 1, longest = 1] = inputs[0]?.shape ?? []
    const { outputs, computeNs } = await run({
      inputs,
      outputNames: [textInterface.output.name],
      ...poolingOf(textInterface, sequences),
      isCancelled: () => batch.every(({ request }) => request.isSettled || request.isCancelled()),
    })
    this.#sizes.record({ rows, length: longest, computeNs })
    this.#costs.record(rows * longest, computeNs)
    this.#lastComputeMs = computeNs / 1e6
    const [output] = outputs
    if (output === undefined || output.shape[0] !== rows)
      throw new OnecopyError(
        'MODEL_RUN_FAILED',
        `output ${textInterface.output.name}: expected ${rows} rows, got [${output?.shape.join(', ')}]`,
      )
    return { floats: floatsOf(output), shape: output.shape }
  }

  #give({ request, place }: Row, row: RowOfBatch): void {
    if (request.isSettled) return
    try {
      request.take(row, place)
    } catch (thrown) {
      this.#fail(request, thrown)
      return
    }
    if (--request.left > 0) return
    this.#settle(request)
    request.resolve()
  }

  #fail(request: Request, error: unknown): void {
    if (request.isSettled) return
    this.#settle(request)
    request.reject(error)
  }

  #settle(request: Request): void {
    request.isSettled = true
    this.#requests.delete(request)
    this.#bytes -= request.bytes
  }
}

class Failure {
  readonly cause: unknown

  constructor(cause: unknown) {
    this.cause = cause
  }
}

/** The model's queue refused the batch: single sequences would be refused as well. */
function isRefusal(thrown: unknown): boolean {
  return !(thrown instanceof OnecopyError) || thrown.status === 503 || thrown.code === 'REQUEST_CANCELLED'
}

function rowOf({ floats, shape }: Output, at: number, length: number): RowOfBatch {
  const elements = floats.length / (shape[0] as number)
  return { data: floats.subarray(at * elements, (at + 1) * elements), shape: shape.slice(1), length }
}
