/**
 * An input transform in a thread of its own, under a watchdog. Work comes in chunks, one at a time in the thread; the
 * chunks of several requests take turns. An item that takes longer than its deadline costs the thread: it is ended
 * and another one started, the item is refused, and what is left of its chunk goes to the end of the queue, so
 * that others do not wait for every trap of a request that is full of them.
 *
 * The deadline counts the thread's time on a CPU: on a busy machine a thread may wait for one for seconds, and its
 * molecule is none the worse for it.
 */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { LRUCache } from 'lru-cache'
import { messageOf, OnecopyError } from '../errors.js'
import { withDeadline } from '../lifecycle.js'
import { threadCpuMs } from '../process/threads.js'
import type { NumericData } from '../tensor.js'
import { formatMs } from '../units.js'
import { type EncodeRequest, PLACES, type ThreadStart, TransformReplySchema } from './messages.js'
import { type InputChoice, inputTransform } from './registry.js'
import type { RowSpec } from './transform.js'

/** A large molecule takes some 10 ms. */
const ITEM_TIMEOUT_MS = 2000
/** By the clock, for an item that waits for something: so many times as long. */
const CLOCK_FACTOR = 15
const OPEN_TIMEOUT_MS = 30_000
const WATCH_INTERVAL_MS = 50
/** What ended a thread is not tried again. */
const REMEMBERED_ITEMS = 1000
/** Of all of them: clients choose how long they are. */
const REMEMBERED_CHARACTERS = 1_000_000
/** RDKit grows to some 50 MB; a thread beyond this has run away. */
const MAX_HEAP_MB = 512

export interface Encoded {
  /** By item: 1 where it has a row. */
  readonly accepted: Uint8Array
  /** By tensor: the rows of accepted items only, without gaps. */
  readonly rows: readonly NumericData[]
}

export interface TransformRunnerOptions {
  readonly choice: InputChoice
  /** Longest time on a CPU for one item. */
  readonly itemTimeoutMs?: number
  /** The thread was ended over an item, or the transform opened anew after one. */
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
  /** Threads that were ended over an item. */
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
    // One that is being ended may still say something about its own work.
    this.#progress = newProgress()
    const start: ThreadStart = { kind, options, progress: this.#progress.buffer }
    const thread = new Worker(new URL('thread.js', import.meta.url), {
      workerData: start,
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
      // What it prints does not belong into the server's output.
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
        `the transform ${kind} does not open: ${messageOf(thrown)}`,
        { cause: thrown },
      )
    }
    if (this.#isClosed) {
      await thread.terminate()
      return
    }
    thread.on('message', (message: unknown) => {
      // One that was given up may have had its answer on the way.
      if (this.#thread === thread) this.#receive(message)
    })
    thread.on('error', (thrown) => this.#lose(thread, messageOf(thrown)))
    thread.on('exit', () => this.#lose(thread, 'it ended by itself'))
    // It works for requests that somebody waits for; by itself it keeps no process alive.
    thread.unref()
    this.#thread = thread
  }

  /**
   * Rows of items. Items that the transform refuses, or that trap it, are refused in the answer.
   * @throws OnecopyError TRANSFORM_UNAVAILABLE when a lost thread cannot be replaced, SHUTTING_DOWN.
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
    // A promise that somebody awaits, and a thread that works for it: the process lives as long as that.
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
      // Those that wait hear of it; who comes later finds out anew.
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
      if (reply.reopened > 0)
        this.#options.onTrapped?.(`the transform was opened anew ${reply.reopened} times`)
      chunk.resolve(reply)
    }
    this.#pump()
  }

  #endTurn(): void {
    clearInterval(this.#watch)
    this.#current = undefined
    this.#thread?.unref()
  }

  /** Looks whether the thread moves on. */
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
        this.#trap(place, `it did not end within ${formatMs(isItem ? itemTimeoutMs : clockLimitMs)}`)
    }, WATCH_INTERVAL_MS)
  }

  /** The thread is gone by itself: out of memory, or a bug in what it runs. */
  #lose(thread: Worker, reason: string): void {
    if (this.#thread !== thread || this.#isClosed) return
    this.#trap(Atomics.load(this.#progress, 0), `the transform's thread is gone: ${reason}`)
  }

  #trap(place: number, reason: string): void {
    const thread = this.#thread
    const chunk = this.#current
    this.#endTurn()
    this.#thread = undefined
    this.replaced++
    void thread?.terminate()
    this.#options.onTrapped?.(reason)
    // It was not over an item: it would be the same again.
    if (place < 0) chunk?.reject(new OnecopyError('TRANSFORM_UNAVAILABLE', reason))
    else if (chunk !== undefined) {
      const item = chunk.items[place]
      if (typeof item === 'string') this.#trapping.set(item, true)
      chunk.skip.add(place)
      this.#queue.push(chunk)
    }
    this.#pump()
  }

  /** Ends the thread, whatever it does. Idempotent. */
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
