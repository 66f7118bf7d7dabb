/**
 * A model that another process keeps in memory, run in this one. It has a thread for inference and a queue,
 * as a worker has, and holds no weights of its own. Nothing here is shared by two attached models, and no
 * signal is listened to.
 */
import { EventEmitter } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { Batcher } from '../batch/batcher.js'
import type { JobResult } from '../batch/job.js'
import { DEFAULT_INLINE_BUDGET_MS } from '../config/config.js'
import { Engine } from '../engine/engine.js'
import { messageOf, OnecopyError } from '../errors.js'
import { checkDivisions } from '../inference/division-check.js'
import type { ExecutionTimes } from '../metrics/recorder.js'
import { collectStartupGarbage } from '../process/collect-garbage.js'
import type { TensorSpec } from '../tensor.js'
import { type Found, findOwner } from './find-owner.js'
import { Generation } from './generation.js'
import type { Description, Mountable, TensorRun } from './mountable.js'
import { type AttachChoices, type RunOptions, readRunOptions } from './options.js'
import type { RouteOptions } from './route-options.js'
import {
  type ExpressMiddleware,
  expressMiddleware,
  type FastifyPlugin,
  fastifyPlugin,
  type KoaMiddleware,
  koaMiddleware,
} from './routes.js'
import { checkOutputNames, type InputValue, type OutputValue, outputValues, readInputs } from './tensors.js'

/** Swaps are rare: a model that is swapped all the time is an error. */
const MAX_ATTEMPTS = 5
const FIRST_LOOK_MS = 100
const LONGEST_LOOK_MS = 2000

export interface ModelEvents {
  /** The owner has replaced the model: the new generation answers here, from the next run on. */
  swapped: [{ readonly version: string; readonly generation: string }]
  /** The owner has replaced or unloaded the model; the loaded generation keeps answering. */
  outdated: []
  /** The owner has ended, in any way. The loaded generation keeps answering. */
  ownerGone: []
  /** The new generation could not be loaded; the previous one keeps answering. */
  swapFailed: [error: Error]
}

function closedError(name: string): OnecopyError {
  return new OnecopyError('SHUTTING_DOWN', `model ${name} was closed`)
}

export class AttachedModel extends EventEmitter<ModelEvents> implements Mountable {
  /** As passed to `attach`. */
  readonly name: string
  readonly #choices: AttachChoices
  readonly #engine = new Engine()
  readonly #batcher: Batcher
  readonly #stop = new AbortController()
  readonly #onExecution: ((rows: number, times: ExecutionTimes) => void)[] = []
  #active: Generation | undefined
  #found: Found | undefined
  #generations = 0
  #following: Promise<void> | undefined
  #closing: Promise<void> | undefined

  private constructor(choices: AttachChoices) {
    super()
    this.name = choices.name
    this.#choices = choices
    if (choices.placement === 'auto') this.#engine.place({ budgetNs: DEFAULT_INLINE_BUDGET_MS * 1e6 })
    this.#batcher = new Batcher({
      run: ({ modelKey, inputs, outputNames, ...options }) =>
        this.#engine.run(modelKey, inputs, outputNames, options),
      onExecution: ({ rows, times }) => {
        for (const listener of this.#onExecution) listener(rows, times)
      },
    })
  }

  /** @throws OnecopyError of `attach`; nothing stays open then. */
  static async open(choices: AttachChoices): Promise<AttachedModel> {
    const model = new AttachedModel(choices)
    const late = AbortSignal.timeout(choices.timeoutMs)
    // Meanwhile the thread starts, which takes longer.
    void collectStartupGarbage()
    try {
      await model.#attach(AbortSignal.any([late, ...(choices.signal === null ? [] : [choices.signal])]))
      return model
    } catch (thrown) {
      await model.close()
      if (late.aborted)
        throw new OnecopyError(
          'TIMEOUT',
          `attach: waited ${choices.timeoutMs} ms for the process that keeps model ${choices.name}`,
          { cause: thrown },
        )
      if (choices.signal?.aborted === true)
        throw new OnecopyError(
          'REQUEST_CANCELLED',
          `attach: attaching to model ${choices.name} was cancelled`,
          {
            cause: choices.signal.reason,
          },
        )
      throw thrown
    }
  }

  get #generation(): Generation {
    if (this.#active === undefined || this.#closing !== undefined) throw closedError(this.name)
    return this.#active
  }

  /** The version that answers. */
  get version(): string {
    return this.#generation.offer.version
  }

  /** The model's name at its owner: `name` may be another one of the same model. */
  get servedName(): string {
    return this.#generation.offer.name
  }

  get inputs(): readonly TensorSpec[] {
    return this.#generation.header.inputs
  }

  get outputs(): readonly TensorSpec[] {
    return this.#generation.header.outputs
  }

  /** Memory that all processes share for it. */
  get sharedBytes(): number {
    return this.#generation.offer.segment.fileBytes
  }

  /** Runs in the queue. */
  get queued(): number {
    return this.#batcher.depth
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  /**
   * Runs the model. Concurrent runs are computed together if the model batches. Inputs are copied, so they
   * may be changed immediately.
   * @throws OnecopyError TENSOR_INVALID, REQUEST_INVALID, MODEL_RUN_FAILED, QUEUE_FULL, REQUEST_TOO_LARGE,
   *   DEADLINE_EXCEEDED, REQUEST_CANCELLED, SHUTTING_DOWN after `close`.
   */
  async run(
    feeds: Readonly<Record<string, InputValue>>,
    options: RunOptions = {},
  ): Promise<Record<string, OutputValue>> {
    const { outputs: asked, signal, timeoutMs = null, priority = 0 } = readRunOptions(options)
    const { header } = this.#generation
    const outputNames = checkOutputNames(asked, header.outputs)
    const inputs = readInputs(feeds, header.inputs)
    const isCancelled = () => signal?.aborted === true
    const { outputs } = await orAborted(signal, () =>
      this.runTensors({ inputs, outputNames, timeoutMs, priority, isCancelled }),
    )
    return outputValues(outputs)
  }

  /** The same on checked tensors, which are taken over. For front ends of this package. */
  async runTensors({ inputs, ...job }: TensorRun): Promise<JobResult> {
    const generation = this.#generation
    return await generation.use(async () => {
      checkDivisions(generation.header.divisions, inputs)
      return await this.#batcher.submit({ ...job, inputs, modelKey: generation.key })
    })
  }

  /**
   * Middleware for Koa: the V2 routes of this model, /v2/models/NAME/infer and those beside it. Other paths
   * are passed on.
   */
  koa(options: RouteOptions = {}): KoaMiddleware {
    return koaMiddleware(this, options)
  }

  /** The same for Express: `app.use(model.express())`, in front of body parsers. */
  express(options: RouteOptions = {}): ExpressMiddleware {
    return expressMiddleware(this, options)
  }

  /** The same as a plugin of Fastify: `app.register(model.fastify(), { prefix })`. */
  fastify(options: RouteOptions = {}): FastifyPlugin {
    return fastifyPlugin(this, options)
  }

  /** What answers now, for front ends of this package. */
  describe(): Description {
    const { offer, header, threads } = this.#generation
    return { offer, header, threads, maxQueue: this.#choices.maxQueue }
  }

  /** For front ends of this package. @throws OnecopyError QUEUE_FULL, REQUEST_TOO_LARGE, SHUTTING_DOWN. */
  checkCapacity(inputBytes: number): void {
    this.#batcher.checkCapacity(this.#generation.key, inputBytes)
  }

  /** For front ends of this package. */
  onExecution(listener: (rows: number, times: ExecutionTimes) => void): void {
    this.#onExecution.push(listener)
  }

  async #attach(signal: AbortSignal): Promise<void> {
    const found = await findOwner(this.#choices, signal)
    try {
      await this.#loadFrom(found, signal)
    } catch (thrown) {
      found.connection.close()
      throw thrown
    }
    this.#found = found
    const { connection } = found
    connection.onChanged(() => this.#onChanged())
    void connection.closed.then(() => this.#onOwnerGone(found))
    if (connection.wasChanged) this.#onChanged()
  }

  /** Loads the offered generation; if it is replaced during the load, the next one. */
  async #loadFrom({ connection, offer: first }: Found, signal: AbortSignal): Promise<void> {
    let offer = first
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#load(offer)
        return
      } catch (thrown) {
        // An owner that had to rewrite a segment offers it under another path.
        if (!connection.wasChanged || attempt === MAX_ATTEMPTS) throw thrown
      } finally {
        connection.loaded()
      }
      signal.throwIfAborted()
      offer = await connection.attach(this.#choices, signal)
    }
  }

  async #load(offer: Found['offer']): Promise<void> {
    this.#generations++
    const key = `${offer.name}@${offer.version}#${this.#generations}`
    const { threads, maxQueue } = this.#choices
    const next = await Generation.load(offer, { engine: this.#engine, key, threads })
    const old = this.#active
    if (this.#closing !== undefined || (old !== undefined && !isSameInterface(old, next))) {
      await this.#unload(next)
      if (this.#closing !== undefined) throw closedError(this.name)
      throw new OnecopyError(
        'INTERFACE_CHANGED',
        `model ${this.name}: version ${offer.version} has other inputs or outputs: attach again`,
      )
    }
    this.#batcher.add(key, next.policy(maxQueue))
    this.#active = next
    if (old === undefined) return
    this.emit('swapped', { version: offer.version, generation: offer.generation })
    void old.unused().then(async () => {
      this.#batcher.remove(old.key)
      await this.#unload(old)
    })
  }

  async #unload(generation: Generation): Promise<void> {
    // A thread that has ended has nothing loaded.
    await this.#engine.unload(generation.key).catch(() => {})
    await generation.close()
  }

  #onChanged(): void {
    if (this.#closing !== undefined) return
    if (!this.#choices.isFollowing) {
      this.emit('outdated')
      return
    }
    this.#following ??= this.#follow().finally(() => {
      this.#following = undefined
      if (this.#found?.connection.wasChanged === true) this.#onChanged()
    })
  }

  async #follow(): Promise<void> {
    const { connection } = this.#found as Found
    try {
      const offer = await connection.attach(this.#choices, this.#stop.signal)
      if (offer.generation === this.#active?.offer.generation) connection.loaded()
      else await this.#loadFrom({ connection, offer }, this.#stop.signal)
    } catch (thrown) {
      if (this.#closing !== undefined) return
      // The owner has unloaded the model: the loaded generation stays.
      if (thrown instanceof OnecopyError && thrown.code === 'MODEL_NOT_FOUND') this.emit('outdated')
      else if (!isEnding(thrown)) this.emit('swapFailed', asError(thrown))
    }
  }

  #onOwnerGone(found: Found): void {
    if (this.#closing !== undefined || this.#found !== found) return
    this.emit('ownerGone')
    if (this.#choices.isFollowing) void this.#awaitOwner(FIRST_LOOK_MS)
  }

  /** Looks for another owner at intervals; does not keep the process alive. */
  async #awaitOwner(waitMs: number): Promise<void> {
    await new Promise<void>((resolve) => setTimeout(resolve, waitMs).unref())
    if (this.#closing !== undefined) return
    try {
      await this.#attach(this.#stop.signal)
    } catch (thrown) {
      if (this.#closing !== undefined) return
      const isMissing = thrown instanceof OnecopyError && thrown.code === 'MODEL_NOT_RESIDENT'
      if (!isMissing && !isEnding(thrown)) this.emit('swapFailed', asError(thrown))
      // It would be loaded again and again.
      if (thrown instanceof OnecopyError && thrown.code === 'INTERFACE_CHANGED') return
      void this.#awaitOwner(Math.min(2 * waitMs, LONGEST_LOOK_MS))
    }
  }

  /** Answers the runs in flight, then releases the model, its thread and its owner. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stop.abort(closedError(this.name))
    this.#batcher.shut()
    this.#found?.connection.close()
    const active = this.#active
    await active?.unused()
    await this.#engine.close()
    await active?.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function isSameInterface(a: Generation, b: Generation): boolean {
  const of = ({ header: { inputs, outputs } }: Generation) => ({ inputs, outputs })
  return isDeepStrictEqual(of(a), of(b))
}

function isEnding(thrown: unknown): boolean {
  return thrown instanceof OnecopyError && thrown.code === 'SHUTTING_DOWN'
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(messageOf(thrown))
}

/** Settles with `work`, or rejects with REQUEST_CANCELLED as soon as the signal aborts. */
async function orAborted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  if (signal === undefined) return await work()
  const cancelled = () =>
    new OnecopyError('REQUEST_CANCELLED', 'the run was cancelled', { cause: signal.reason })
  if (signal.aborted) throw cancelled()
  let onAbort = () => {}
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(cancelled())
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work(), aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
