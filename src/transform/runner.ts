/**
 * Runs an input transform in its own thread under a watchdog. The thread processes one chunk at a time;
 * chunks of several requests take turns. If an item exceeds its time limit, the thread is terminated and
 * replaced, and the item is rejected. The rest of its chunk goes to the end of the queue, so that a request
 * with many such items does not block the others.
 *
 * The limit applies to CPU time, because on a busy machine a thread may wait seconds for a CPU.
 */

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { LRUCache } from 'lru-cache'
import { messageOf, OnecopyError } from '../errors.js'
import { programFile } from '../installation.js'
import { withDeadline } from '../lifecycle.js'
import { threadCpuMs } from '../process/threads.js'
import type { NumericData } from '../tensor.js'
import { formatMs } from '../units.js'
import { type EncodeRequest, PLACES, type ThreadStart, TransformReplySchema } from './messages.js'
import { type InputChoice, inputTransform } from './registry.js'
import type { RowSpec } from './transform.js'

/** A large molecule takes about 10 ms. */
const ITEM_TIMEOUT_MS = 2000
/** The wall-clock limit, for an item that blocks, as a multiple of the CPU limit. */
const CLOCK_FACTOR = 15
const OPEN_TIMEOUT_MS = 30_000
const WATCH_INTERVAL_MS = 50
/** Items that crashed a thread are not tried again. */
const REMEMBERED_ITEMS = 1000
/** Total length of all remembered items; clients control the length. */
const REMEMBERED_CHARACTERS = 1_000_000
/** RDKit grows to about 50 MB; a thread above this limit is out of control. */
const MAX_HEAP_MB = 512

export interface Encoded {
  /** Per item: 1 if it was accepted. */
  readonly accepted: Uint8Array
  /** Per tensor: the rows of accepted items only, without gaps. */
  readonly rows: readonly NumericData[]
}

export interface TransformRunnerOptions {
  readonly choice: InputChoice
  /** CPU time limit for one item. */
  readonly itemTimeoutMs?: number
  /** Called when an item caused the thread to be replaced or the transform to be reopened. */
  readonly onTrapped?: (reason: string) => void
}

interface Chunk {
  readonly id: number
  readonly items: readonly unknown[]
  readonly skip: Set<number>
  resolve(encoded: Encoded): void
  reject(error: unknown): void
}

export class TransformRunner {
  readonly rows: readonly RowSpec[]
  readonly #options: TransformRunnerOptions
  readonly #queue: Chunk[] = []
  readonly #trapping = new LRUCache<string, true>({
    max: REMEMBERED_ITEMS,
    maxSize: REMEMBERED_CHARACTERS,
    sizeCalculation: (_, item) => item.length + 1,
  })
  #progress = newProgress()
  #thread: Worker | undefined
  #current: Chunk | undefined
  #watch: NodeJS.Timeout | undefined
  #nextId = 0
  #isStarting = false
  /** The kernel's id of the thread. */
  #threadId: number | null = null
  #isClosed = false
  /** Number of threads replaced because of an item. */
  replaced = 0

  private constructor(options: TransformRunnerOptions) {
    this.#options = options
    this.rows = inputTransform(options.choice).rows(options.choice.options)
  }

  /** @throws OnecopyError TRANSFORM_UNAVAILABLE, TIMEOUT. */
  static async open(options: TransformRunnerOptions): Promise<TransformRunner> {
    const runner = new TransformRunner(options)
    await runner.#start()
    return runner
  }

  async #start(): Promise<void> {
    const { kind, options } = this.#options.choice
    // A new buffer, because a thread being terminated may still write to the old one.
    this.#progress = newProgress()
    const start: ThreadStart = { kind, options, progress: this.#progress.buffer }
    const thread = new Worker(programFile('src/transform/thread.js'), {
      workerData: start,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
      // Output of the thread must not mix with the server's output.
      stdout: true,
      stderr: true,
    })
    thread.stdout.resume()
    thread.stderr.resume()
    const opened = (async () => {
      const [raw] = (await once(thread, 'message')) as [unknown]
      const reply = TransformReplySchema.parse(raw)
      if (reply.type === 'failed') throw new OnecopyError(reply.code, reply.message)
      this.#threadId = reply.type === 'opened' ? reply.threadId : null
    })()
    try {
      await withDeadline(opened, OPEN_TIMEOUT_MS, `the transform ${kind} to open`)
    } catch (thrown) {
      await thread.terminate()
      if (thrown instanceof OnecopyError) throw thrown
      throw new OnecopyError(
        'TRANSFORM_UNAVAILABLE',
        `the transform ${kind} cannot be opened: ${messageOf(thrown)}`,
        { cause: thrown },
      )
    }
    if (this.#isClosed) {
      await thread.terminate()
      return
    }
    thread.on('message', (message: unknown) => {
      // A replaced thread may still have sent a reply.
      if (this.#thread === thread) this.#receive(message)
    })
    thread.on('error', (thrown) => this.#lose(thread, messageOf(thrown)))
    thread.on('exit', () => this.#lose(thread, 'it exited'))
    // The thread keeps the process alive only while it works for a request.
    thread.unref()
    this.#thread = thread
  }

  /**
   * Encodes items. Items that the transform rejects, or that crash it, are marked as not accepted.
   * @throws OnecopyError TRANSFORM_UNAVAILABLE if a lost thread cannot be replaced, SHUTTING_DOWN.
   */
  encode(items: readonly unknown[]): Promise<Encoded> {
    return new Promise((resolve, reject) => {
      const isTrapping = (item: unknown) => typeof item === 'string' && this.#trapping.has(item)
      const skip = new Set(items.flatMap((item, place) => (isTrapping(item) ? [place] : [])))
      this.#queue.push({ id: this.#nextId++, items, skip, resolve, reject })
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#isClosed) {
      for (const { reject } of this.#queue.splice(0)) reject(closedError())
      return
    }
    if (this.#current !== undefined || this.#queue.length === 0) return
    if (this.#thread === undefined) {
      void this.#restart()
      return
    }
    const chunk = this.#queue.shift() as Chunk
    this.#current = chunk
    // Keeps the process alive while the chunk is processed.
    this.#thread.ref()
    this.#thread.postMessage({
      id: chunk.id,
      items: [...chunk.items],
      skip: [...chunk.skip],
    } satisfies EncodeRequest)
    this.#watchOver(chunk)
  }

  async #restart(): Promise<void> {
    if (this.#isStarting) return
    this.#isStarting = true
    try {
      await this.#start()
    } catch (thrown) {
      // Queued chunks fail; later ones try again.
      for (const { reject } of this.#queue.splice(0)) reject(thrown)
    } finally {
      this.#isStarting = false
    }
    this.#pump()
  }

  #receive(message: unknown): void {
    const reply = TransformReplySchema.parse(message)
    const chunk = this.#current
    if (chunk === undefined || reply.type === 'opened') return
    this.#endTurn()
    if (reply.type === 'failed') chunk.reject(new OnecopyError(reply.code, reply.message))
    else {
      if (reply.reopened > 0) this.#options.onTrapped?.(`the transform was reopened ${reply.reopened} times`)
      chunk.resolve(reply)
    }
    this.#pump()
  }

  #endTurn(): void {
    clearInterval(this.#watch)
    this.#current = undefined
    this.#thread?.unref()
  }

  /** Checks that the thread makes progress. */
  #watchOver(chunk: Chunk): void {
    const { itemTimeoutMs = ITEM_TIMEOUT_MS } = this.#options
    let seen = -1
    let sinceMs = performance.now()
    let sinceCpuMs: number | null = null
    this.#watch = setInterval(() => {
      const moved = Atomics.load(this.#progress, 1)
      const nowMs = performance.now()
      const cpuMs = this.#threadId === null ? null : threadCpuMs(this.#threadId)
      if (moved !== seen) {
        seen = moved
        sinceMs = nowMs
        sinceCpuMs = cpuMs
        return
      }
      if (this.#current !== chunk) return
      const place = Atomics.load(this.#progress, 0)
      const isItem = place !== PLACES.idle && place !== PLACES.opening
      const spentMs = cpuMs === null || sinceCpuMs === null ? 0 : cpuMs - sinceCpuMs
      const clockLimitMs = isItem ? itemTimeoutMs * CLOCK_FACTOR : OPEN_TIMEOUT_MS
      if ((isItem && spentMs > itemTimeoutMs) || nowMs - sinceMs > clockLimitMs)
        this.#trap(place, `an item did not finish within ${formatMs(isItem ? itemTimeoutMs : clockLimitMs)}`)
    }, WATCH_INTERVAL_MS)
  }

  /** The thread exited by itself: out of memory, or a bug. */
  #lose(thread: Worker, reason: string): void {
    if (this.#thread !== thread || this.#isClosed) return
    this.#trap(Atomics.load(this.#progress, 0), `the transform's thread exited: ${reason}`)
  }

  #trap(place: number, reason: string): void {
    const thread = this.#thread
    const chunk = this.#current
    this.#endTurn()
    this.#thread = undefined
    this.replaced++
    void thread?.terminate()
    this.#options.onTrapped?.(reason)
    // Not caused by an item: a retry would fail the same way.
    if (place < 0) chunk?.reject(new OnecopyError('TRANSFORM_UNAVAILABLE', reason))
    else if (chunk !== undefined) {
      const item = chunk.items[place]
      if (typeof item === 'string') this.#trapping.set(item, true)
      chunk.skip.add(place)
      this.#queue.push(chunk)
    }
    this.#pump()
  }

  /** Terminates the thread. Idempotent. */
  async close(): Promise<void> {
    this.#isClosed = true
    const thread = this.#thread
    const chunk = this.#current
    this.#endTurn()
    this.#thread = undefined
    chunk?.reject(closedError())
    this.#pump()
    await thread?.terminate()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function newProgress(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(2 * Int32Array.BYTES_PER_ELEMENT))
}

function closedError(): OnecopyError {
  return new OnecopyError('SHUTTING_DOWN', 'the server is shutting down')
}
