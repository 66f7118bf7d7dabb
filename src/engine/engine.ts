/** The serving process's handle on its inference thread: load, run, unload, close. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { OnecopyError } from '../errors.js'
import type { StatsPageReference } from '../metrics/page.js'
import type { AttachedSegment } from '../segment/attach.js'
import type { Tensor, TensorSpec } from '../tensor.js'
import {
  type OutputLimit,
  type ThreadReply,
  ThreadReplySchema,
  type ThreadRequest,
  transferList,
  type WithoutId,
} from './messages.js'

export interface RunResult {
  readonly outputs: readonly Tensor[]
  /** When the runtime began, in nanoseconds on the clock of process.hrtime. */
  readonly startedNs: number
  /** Time inside the runtime, in nanoseconds. */
  readonly computeNs: number
}

export interface RunOptions {
  readonly outputLimit?: OutputLimit | null
  /** Whether it belongs to loading the model: no client has asked. */
  readonly isProving?: boolean
}

/** A model's graph, and what of its header matters for loading it. */
export interface LoadableModel extends Pick<AttachedSegment, 'graph' | 'folder'> {
  /** Of inputs that need not be sent; the graph does not hold them. */
  readonly defaults?: readonly Tensor[]
  readonly header: Pick<AttachedSegment['header'], 'form' | 'externalDataFolder'> & {
    readonly inputs: readonly TensorSpec[]
    readonly outputs: readonly TensorSpec[]
  }
}

interface Waiting {
  resolve(reply: ThreadReply): void
  reject(error: Error): void
}

export class Engine {
  readonly #thread: Worker
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 0
  #closing: Promise<void> | undefined
  #isGone = false
  /** Settles when the thread is gone; rejects when it went without being asked. */
  readonly ended: Promise<void>

  constructor() {
    this.#thread = new Worker(new URL('thread.js', import.meta.url))
    this.#thread.on('message', (message: unknown) => this.#receive(message))
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
    // Whoever cares awaits `ended`; a failure also rejects every call in flight.
    this.ended.catch(() => {})
  }

  #receive(message: unknown): void {
    const reply = ThreadReplySchema.parse(message)
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if (reply.type === 'failed') waiting?.reject(new OnecopyError(reply.code, reply.message))
    else waiting?.resolve(reply)
  }

  #ask(request: WithoutId<ThreadRequest>, transfer: ArrayBuffer[] = []): Promise<ThreadReply> {
    if (this.#isGone) return Promise.reject(new Error('the inference thread is gone'))
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#thread.postMessage({ ...request, id }, transfer)
    })
  }

  /**
   * From here on the slot of the page of processes says which model the runtime works on, up to the moment of a crash.
   * @throws OnecopyError SEGMENT_INVALID when it is not the page described.
   */
  async reportTo(page: StatsPageReference, slot: number): Promise<void> {
    await this.#ask({ type: 'report', page, slot })
  }

  /**
   * Loads a model from an attached segment; `number` names it where `reportTo` said. Blocks the inference thread, not the caller's.
   * @throws OnecopyError MODEL_UNSUPPORTED with the runtime's words.
   */
  async load(
    modelKey: string,
    segment: LoadableModel,
    { threads, number = 0 }: { readonly threads: number; readonly number?: number },
  ): Promise<void> {
    const { header } = segment
    // A copy: the thread takes it over by transfer, and a mapping cannot be transferred.
    const graph = segment.graph.slice()
    await this.#ask(
      {
        type: 'load',
        modelKey,
        graph,
        folder: header.form === 'compiled' ? segment.folder : header.externalDataFolder,
        form: header.form,
        inputs: header.inputs.map(specOf),
        outputs: header.outputs.map(specOf),
        defaults: (segment.defaults ?? []).map((one) => ({ ...one, shape: [...one.shape] })),
        threads,
        number,
      },
      [graph.buffer],
    )
  }

  /**
   * Runs a model once. The inputs' buffers are transferred: the caller's views are empty afterwards.
   * @throws OnecopyError MODEL_RUN_FAILED, MODEL_NOT_READY, RESPONSE_TOO_LARGE.
   */
  async run(
    modelKey: string,
    inputs: readonly Tensor[],
    outputNames: readonly string[],
    { outputLimit = null, isProving = false }: RunOptions = {},
  ): Promise<RunResult> {
    const tensors = inputs.map((tensor) => ({ ...tensor, shape: [...tensor.shape] }))
    const reply = await this.#ask(
      {
        ...{ type: 'run', modelKey, inputs: tensors, outputNames: [...outputNames] },
        ...{ outputLimit, isProving },
      },
      transferList(tensors),
    )
    if (reply.type !== 'ran')
      throw new Error(`expected a result from the inference thread, got ${reply.type}`)
    const { outputs, startedNs, computeNs } = reply
    return { outputs, startedNs, computeNs }
  }

  async unload(modelKey: string): Promise<void> {
    await this.#ask({ type: 'unload', modelKey })
  }

  /** Whether the thread was asked for something that is not done: ending it, or the process by itself, would abort. */
  get isBusy(): boolean {
    return this.#waiting.size > 0
  }

  /** Resolves when the thread has come round to answering. */
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function specOf({ name, datatype, shape }: TensorSpec) {
  return { name, datatype, shape: shape === null ? null : [...shape] }
}
