/**
 * Admission to a model: a queue limited by requests and by bytes. A request over the limit is
 * rejected immediately, one that waits too long is answered at its deadline, and one whose client
 * has left is dropped before it costs compute.
 */
import { OnecopyError } from '../errors.js'
import { monotonicNs } from '../process/clock.js'
import { dataBytes } from '../tensor.js'
import { compatibilityKey, rowsOf } from './concat.js'
import type { Job, JobResult } from './job.js'

/** Priority of requests that set none: between 1 and 3. */
const DEFAULT_PRIORITY = 2

export interface QueueLimits {
  readonly maxRequests: number
  readonly maxBytes: number
}

/** Each pooled job has its own key, because its pooling refers to its own rows. */
let pooledJobs = 0

/** A job with its state in the queue. */
export class Entry {
  readonly job: Job
  readonly enteredNs = monotonicNs()
  /** Null if it runs alone. */
  readonly rows: number | null
  readonly bytes: number
  readonly priority: number
  readonly #resolve: (result: JobResult) => void
  readonly #reject: (error: unknown) => void
  #key: string | undefined
  #isSettled = false
  #timer: NodeJS.Timeout | undefined

  constructor(
    job: Job,
    isBatchable: boolean,
    resolve: (result: JobResult) => void,
    reject: (error: unknown) => void,
  ) {
    this.job = job
    this.rows = isBatchable ? rowsOf(job.inputs) : null
    this.bytes = dataBytes(job.inputs)
    this.priority = job.priority === undefined || job.priority === 0 ? DEFAULT_PRIORITY : job.priority
    this.#resolve = resolve
    this.#reject = reject
  }

  /** Only needed where several jobs are queued. */
  get key(): string {
    this.#key ??= this.#newKey()
    return this.#key
  }

  #newKey(): string {
    const { inputs, outputNames, pooling } = this.job
    if (this.rows === null) return ''
    return pooling === undefined ? compatibilityKey(inputs, outputNames) : `pooled ${++pooledJobs}`
  }

  #settle(): boolean {
    if (this.#isSettled) return false
    this.#isSettled = true
    clearTimeout(this.#timer)
    return true
  }

  /** `startedNs`: the start of its execution, on the clock of process.hrtime. */
  resolve({ outputs, times }: Omit<JobResult, 'queueNs'>, startedNs: number): void {
    if (this.#settle()) this.#resolve({ outputs, times, queueNs: startedNs - this.enteredNs })
  }

  reject(error: unknown): void {
    if (this.#settle()) this.#reject(error)
  }

  /** Starts the timer of the job's deadline; `onLate` is called if the deadline passes first. */
  startDeadline(onLate: () => void): void {
    const { timeoutMs } = this.job
    if (timeoutMs === undefined || timeoutMs === null) return
    this.#timer = setTimeout(() => {
      this.#rejectAsLate()
      onLate()
    }, timeoutMs)
  }

  #rejectAsLate(): void {
    const message = `the deadline of ${this.job.timeoutMs} ms passed`
    this.reject(new OnecopyError('DEADLINE_EXCEEDED', message))
  }

  /**
   * Whether the result is not wanted any more. A timer may be late: executions block the event
   * loop.
   */
  get isCancelled(): boolean {
    const { timeoutMs } = this.job
    if (timeoutMs !== undefined && timeoutMs !== null) {
      const waitedMs = (monotonicNs() - this.enteredNs) / 1e6
      if (waitedMs >= timeoutMs) this.#rejectAsLate()
    }
    return this.#isSettled || this.job.isCancelled?.() === true
  }
}

export class ModelQueue {
  readonly #limits: QueueLimits
  readonly #entries: Entry[] = []
  #bytes = 0

  constructor(limits: QueueLimits) {
    this.#limits = limits
  }

  get length(): number {
    return this.#entries.length
  }

  /** The oldest job of the highest priority; undefined if the queue is empty. */
  get head(): Entry | undefined {
    return this.#entries[0]
  }

  /**
   * @throws OnecopyError QUEUE_FULL if a request of this size exceeds a limit now,
   *   REQUEST_TOO_LARGE if it would even in an empty queue, so that a retry cannot succeed.
   */
  checkCapacity(bytes = 0): void {
    const { maxRequests, maxBytes } = this.#limits
    if (bytes > maxBytes) {
      throw new OnecopyError(
        'REQUEST_TOO_LARGE',
        `expected inputs of at most ${maxBytes} bytes, as much as the model's queue may hold (max_queue_bytes), got ${bytes}`,
      )
    }
    const isOverRequests = this.#entries.length >= maxRequests
    if (!isOverRequests && this.#bytes + bytes <= maxBytes) return
    const why = isOverRequests
      ? `${this.#entries.length} requests are queued`
      : `${this.#bytes} bytes are queued, and ${bytes} more exceed the limit of ${maxBytes}`
    throw new OnecopyError('QUEUE_FULL', `the queue is full: ${why}`, { retryAfterSeconds: 1 })
  }

  /** Inserts after all entries of the same or a higher priority. */
  push(entry: Entry): void {
    this.checkCapacity(entry.bytes)
    let at = this.#entries.length
    while (at > 0 && (this.#entries[at - 1] as Entry).priority > entry.priority) at--
    this.#entries.splice(at, 0, entry)
    this.#bytes += entry.bytes
    entry.startDeadline(() => this.#remove(entry))
  }

  #remove(entry: Entry): void {
    const at = this.#entries.indexOf(entry)
    if (at < 0) return
    this.#entries.splice(at, 1)
    this.#bytes -= entry.bytes
  }

  /** Drops cancelled entries at the front, so that the head has a client. */
  dropCancelled(): void {
    for (let head = this.head; head?.isCancelled; head = this.head) {
      this.#remove(head)
      head.reject(new OnecopyError('REQUEST_CANCELLED', 'the client disconnected before its request ran'))
    }
  }

  /** Rejects all queued entries with `error`. */
  rejectAll(error: OnecopyError): void {
    for (const entry of this.#entries.splice(0)) entry.reject(error)
    this.#bytes = 0
  }

  /** Number of queued rows that could run with the head, including its own. */
  compatibleRows(): number {
    const { head } = this
    if (head === undefined) return 0
    if (head.rows === null) return 1
    let rows = 0
    if (this.#entries.length === 1) return head.rows
    for (const entry of this.#entries) if (entry.key === head.key && entry.rows !== null) rows += entry.rows
    return rows
  }

  /**
   * Takes the head and all compatible entries, up to `maxRows` and `maxBytes`; the head is always
   * included.
   */
  takeBatch(maxRows: number, maxBytes: number): Entry[] {
    const head = this.#entries.shift()
    if (head === undefined) return []
    this.#bytes -= head.bytes
    const batch = [head]
    if (head.rows === null) return batch
    let { rows, bytes } = head
    for (let i = 0; i < this.#entries.length && rows < maxRows; ) {
      const entry = this.#entries[i] as Entry
      const fits = entry.rows !== null && rows + entry.rows <= maxRows && bytes + entry.bytes <= maxBytes
      if (!fits || entry.key !== head.key || entry.isCancelled) {
        i++
        continue
      }
      this.#entries.splice(i, 1)
      this.#bytes -= entry.bytes
      batch.push(entry)
      rows += entry.rows as number
      bytes += entry.bytes
    }
    return batch
  }
}
