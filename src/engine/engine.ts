/**
 * Loads and runs models for a serving process. Executions run in the inference thread, or on the
 * event loop if they are known to be short. Callers of `run` do not need to know which.
 */

import { OnecopyError } from '../errors.js'
import type { StatsPageReference } from '../metrics/page.js'
import { StatsPage } from '../metrics/page.js'
import type { Placement } from '../metrics/series.js'
import { monotonicNs } from '../process/clock.js'
import type { AttachedSegment } from '../segment/attach.js'
import { dataBytes, type OutputLimit, type Tensor, type TensorSpec } from '../tensor.js'
import type { TokenPooling } from '../token-pooling.js'
import { ExecutionCost } from './execution-cost.js'
import { InferenceThread } from './inference-thread.js'
import type { LoadRequest, Ran, ThreadStart } from './messages.js'
import { LoopShare, type PlacementPolicy, placementOf } from './placement.js'
import { Sessions } from './sessions.js'

export interface RunResult extends Ran {
  readonly placement: Placement
}

export interface RunOptions {
  readonly outputLimit?: OutputLimit | null
  /** How outputs with a state for each token are reduced. */
  readonly pooling?: TokenPooling | null
  /** Whether the CPU time is measured as well. */
  readonly measuresCpu?: boolean
  /** Whether it is part of loading the model, not a client's request. */
  readonly isProving?: boolean
  /** Whether the request is the only one in the server, and no other client is active. */
  readonly isAlone?: boolean
  /** Memory of the inputs, where the caller has calculated it. */
  readonly inputBytes?: number
}

/** A model's graph, and the parts of its header that are needed to load it. */
export interface LoadableModel extends Pick<AttachedSegment, 'graph' | 'folder'> {
  /** Defaults of optional inputs, which the graph does not contain. */
  readonly defaults?: readonly Tensor[]
  readonly header: Pick<AttachedSegment['header'], 'form' | 'externalDataFolder'> & {
    readonly inputs: readonly TensorSpec[]
    readonly outputs: readonly TensorSpec[]
  }
}

export interface LoadChoices {
  readonly threads: number
  /** Whether memory for activations is kept from run to run. */
  readonly keepsActivations?: boolean | undefined
  /** Identifies the model version where `reportTo` records it. */
  readonly number?: number
}

/** Limit for the first run of a model, which faults its weights in. */
const FIRST_RUN_FACTOR = 5

const THREAD_ONLY: PlacementPolicy = { budgetNs: 0 }

interface LoadedInThread {
  readonly cost: ExecutionCost
  readonly loadMs: number
}

export class Engine {
  #policy: PlacementPolicy = THREAD_ONLY
  readonly #thread: InferenceThread
  readonly #onLoop = new Sessions('runningOnLoop')
  readonly #loaded = new Map<string, LoadedInThread>()
  readonly #loopShare = new LoopShare()

  /**
   * Starts the inference thread. With `preloadsRuntime` the thread loads the runtime now, not with
   * the first model: only for processes whose environment is already set for it
   * (src/runtime/environment.ts).
   */
  constructor({ preloadsRuntime = false }: Partial<ThreadStart> = {}) {
    this.#thread = new InferenceThread({ preloadsRuntime })
  }

  /** Which executions may run on the event loop; none before this is called. */
  place(policy: PlacementPolicy): void {
    this.#policy = policy
  }

  /** Settles when the inference thread has ended; rejects if the end was not requested. */
  get ended(): Promise<void> {
    return this.#thread.ended
  }

  /**
   * Starts to record in the slot of the process page which model the runtime is running, for crash
   * reports.
   * @throws OnecopyError SEGMENT_INVALID if the page does not match the description.
   */
  async reportTo(page: StatsPageReference, slot: number): Promise<void> {
    this.#onLoop.reportTo((await StatsPage.open(page)).slot(slot))
    await this.#thread.reportTo(page, slot)
  }

  /**
   * Loads a model from an attached segment into the inference thread.
   * @throws OnecopyError MODEL_UNSUPPORTED with the message of the runtime.
   */
  async load(modelKey: string, segment: LoadableModel, choices: LoadChoices): Promise<void> {
    const loadMs = await this.#thread.load(loadRequest(modelKey, segment, choices))
    this.#loaded.set(modelKey, { cost: new ExecutionCost(), loadMs })
  }

  /**
   * Loads a model that has run before a second time, for the event loop, where it is cheap enough:
   * a session that shares its packed weights costs little memory. The load blocks the event loop
   * for about as long as it took in the thread: at most `longestMs`.
   */
  loadOnLoop(
    modelKey: string,
    segment: LoadableModel,
    { longestMs, ...choices }: LoadChoices & { readonly longestMs: number },
  ): boolean {
    const loaded = this.#loaded.get(modelKey)
    const lowestNs = loaded?.cost.lowestNs ?? Number.POSITIVE_INFINITY
    const loadMs = loaded?.loadMs ?? Number.POSITIVE_INFINITY
    const { budgetNs } = this.#policy
    if (
      budgetNs === 0 ||
      // A second session starts its own threads.
      choices.threads > 1 ||
      loadMs > longestMs ||
      lowestNs > budgetNs * FIRST_RUN_FACTOR
    )
      return false
    try {
      this.#onLoop.load(loadRequest(modelKey, segment, choices))
      return true
    } catch (thrown) {
      // Without a second session, every execution runs in the thread, which has loaded the model.
      if (thrown instanceof OnecopyError) return false
      throw thrown
    }
  }

  /**
   * Runs a model once. The inputs' buffers may be transferred: the caller's views are empty
   * afterwards.
   * @throws OnecopyError MODEL_RUN_FAILED, MODEL_NOT_READY, RESPONSE_TOO_LARGE.
   */
  async run(
    modelKey: string,
    inputs: readonly Tensor[],
    outputNames: readonly string[],
    options: RunOptions = {},
  ): Promise<RunResult> {
    const { outputLimit = null, pooling = null, measuresCpu = false } = options
    const { isProving = false, isAlone = false } = options
    const cost = this.#loaded.get(modelKey)?.cost
    const inputBytes = options.inputBytes ?? dataBytes(inputs)
    const placement = isProving
      ? 'thread'
      : this.#place(modelKey, cost?.estimateNs(inputBytes) ?? null, isAlone)
    const request = { modelKey, inputs, outputNames, outputLimit, pooling, measuresCpu, isProving }
    const ran = placement === 'thread' ? await this.#thread.run(request) : this.#onLoop.run(request)
    cost?.record(inputBytes, ran.computeNs)
    if (placement === 'event-loop') this.#loopShare.add(ran.startedNs + ran.computeNs, ran.computeNs)
    return {
      outputs: ran.outputs,
      startedNs: ran.startedNs,
      computeNs: ran.computeNs,
      cpuNs: ran.cpuNs,
      placement,
    }
  }

  #place(modelKey: string, estimateNs: number | null, isAlone: boolean): Placement {
    if (!this.#onLoop.has(modelKey)) return 'thread'
    const loopShare = this.#loopShare.of(monotonicNs())
    return placementOf(this.#policy, { estimateNs, isAlone, loopShare })
  }

  async unload(modelKey: string): Promise<void> {
    this.#loaded.delete(modelKey)
    this.#onLoop.unload(modelKey)
    await this.#thread.unload(modelKey)
  }

  /** Whether the inference thread may be in the runtime: `process.exit` would then abort. */
  get isBusy(): boolean {
    return this.#thread.isBusy
  }

  /** Resolves when the inference thread has answered all earlier messages. */
  async ping(): Promise<void> {
    await this.#thread.ping()
  }

  /** Lets the run in progress finish, releases every session, ends the thread. Idempotent. */
  async close(): Promise<void> {
    await this.#thread.close()
    this.#onLoop.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

function loadRequest(
  modelKey: string,
  { graph, folder, header, defaults = [] }: LoadableModel,
  { threads, keepsActivations, number = 0 }: LoadChoices,
): LoadRequest {
  return {
    modelKey,
    // A copy: a mapping cannot be transferred.
    graph: graph.slice(),
    folder: header.form === 'compiled' ? folder : header.externalDataFolder,
    form: header.form,
    inputs: header.inputs.map(specOf),
    outputs: header.outputs.map(specOf),
    defaults,
    threads,
    keepsActivations,
    number,
  }
}

function specOf({ name, datatype, shape }: TensorSpec): TensorSpec {
  return { name, datatype, shape }
}
