/** A serving process's handle on its inference thread: load, run, unload, close. */

import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { OnecopyError } from '../errors.js'
import { programFile } from '../installation.js'
import type { StatsPageReference } from '../metrics/page.js'
import {
  type LoadRequest,
  type Ran,
  type RunRequest,
  type ThreadReply,
  type ThreadRequest,
  type ThreadStart,
  transferList,
  type WithoutId,
} from './messages.js'

/**
 * Tensors are outside of V8's heap: what is left are messages. V8's default of 48 MB would keep up to 32 MB
 * of their garbage. Three semi-spaces of 2 MB.
 */
const YOUNG_GENERATION = { maxYoungGenerationSizeMb: 6 }

interface Waiting {
  resolve(reply: ThreadReply): void
  reject(error: Error): void
}

export class InferenceThread {
  readonly #thread: Worker
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 0
  #closing: Promise<void> | undefined
  #isGone = false
  /** Settles when the thread has ended; rejects if the end was not requested. */
  readonly ended: Promise<void>

  constructor(start: ThreadStart) {
    this.#thread = new Worker(programFile('src/engine/thread.js'), {
      resourceLimits: YOUNG_GENERATION,
      workerData: start,
    })
    this.#thread.on('message', (reply: ThreadReply) => this.#receive(reply))
    this.ended = new Promise((resolve, reject) => {
      const fail = (error: Error) => {
        this.#isGone = true
        for (const { reject: rejectOne } of this.#waiting.values()) rejectOne(error)
        this.#waiting.clear()
        reject(error)
      }
      this.#thread.on('error', (thrown) => fail(new Error('the inference thread failed', { cause: thrown })))
      this.#thread.on('exit', (code) => {
        if (this.#closing !== undefined) resolve()
        fail(new Error(`the inference thread ended by itself with code ${code}`))
      })
    })
    // Prevents an unhandled rejection; a failure also rejects every call in flight.
    this.ended.catch(() => {})
  }

  #receive(reply: ThreadReply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.type === 'failed') waiting?.reject(new OnecopyError(reply.code, reply.message))
    else waiting?.resolve(reply)
  }

  #ask(request: WithoutId<ThreadRequest>, transfer: ArrayBuffer[] = []): Promise<ThreadReply> {
    if (this.#isGone) return Promise.reject(new Error('the inference thread has ended'))
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#thread.postMessage({ ...request, id }, transfer)
    })
  }

  /** @throws OnecopyError SEGMENT_INVALID if the page does not match the description. */
  async reportTo(page: StatsPageReference, slot: number): Promise<void> {
    await this.#ask({ type: 'report', page, slot })
  }

  /**
   * Loads a model; the graph's buffer is transferred. Resolves with the time that the runtime took,
   * in milliseconds.
   * @throws OnecopyError MODEL_UNSUPPORTED with the message of the runtime.
   */
  async load(request: LoadRequest): Promise<number> {
    const reply = await this.#ask({ type: 'load', ...request }, [request.graph.buffer as ArrayBuffer])
    if (reply.type !== 'loaded')
      throw new Error(`expected a loaded model from the inference thread, got ${reply.type}`)
    return reply.loadMs
  }

  /**
   * Runs a model once. The inputs' buffers are transferred: the caller's views are empty afterwards.
   * @throws OnecopyError MODEL_RUN_FAILED, MODEL_NOT_READY, RESPONSE_TOO_LARGE.
   */
  async run(request: RunRequest): Promise<Ran> {
    const reply = await this.#ask({ type: 'run', ...request }, transferList(request.inputs))
    if (reply.type !== 'ran')
      throw new Error(`expected a result from the inference thread, got ${reply.type}`)
    return reply
  }

  async unload(modelKey: string): Promise<void> {
    await this.#ask({ type: 'unload', modelKey })
  }

  /** Whether the thread has work in progress: ending it, or the process by itself, would abort. */
  get isBusy(): boolean {
    return this.#waiting.size > 0
  }

  /** Resolves when the thread has answered all earlier messages. */
  async ping(): Promise<void> {
    await this.#ask({ type: 'ping' })
  }

  /** Lets the run in progress finish, releases every session, ends the thread. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      if (this.#isGone) return
      const exited = once(this.#thread, 'exit')
      await this.#ask({ type: 'close' })
      await exited
    })()
    return this.#closing
  }
}
