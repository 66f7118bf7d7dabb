/** The interface of front ends (REST, gRPC) to inference: the models, and `submit`. */
import type { OutOfService } from '../errors.js'
import type { ExecutionTimes, ModelRecorder } from '../metrics/recorder.js'
import type { ModelStatistics } from '../metrics/statistics.js'
import type { ModelConfiguration } from '../protocol/v2/configuration.js'
import type { ModelSpec } from '../protocol/v2/request.js'
import type { OutputLimit, Tensor } from '../tensor.js'
import type { TextModel } from '../text/text-model.js'
import type { TokenPooling } from '../token-pooling.js'

export interface ServedModel extends ModelSpec {
  readonly counts: ModelRecorder
  /** Counters summed over all current and earlier processes that serve it. */
  statistics(): ModelStatistics
  /** Size of its segment, which all processes share. */
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  /** Class labels, by output. */
  readonly labels: Readonly<Record<string, readonly string[]>>
  /** Text inference, if the model has a tokenizer. */
  readonly text: TextModel | null
  /** Keeps it loaded during `work`. */
  use<T>(work: () => Promise<T>): Promise<T>
}

/** A model version that is out of service, loaded or not. */
export interface VersionOutOfService {
  readonly name: string
  readonly version: string
  readonly state: OutOfService
  readonly counts: ModelRecorder
}

export interface ModelDirectory {
  /** Names of models that are loaded or out of service. */
  names(): readonly string[]
  /** Versions of a model that are loaded, newest first; empty for an unknown model. */
  versions(name: string): readonly string[]
  /**
   * The given version if it is loaded. Without a version, the newest in service, or else the newest
   * that is loaded.
   */
  find(name: string, version?: string): ServedModel | null
  /**
   * The given version if it is out of service; without a version, the newest if all versions are.
   */
  outOfService(name: string, version?: string): VersionOutOfService | null
}

export interface SubmitOptions {
  readonly model: ServedModel
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  /** Size limit of the outputs in the response; no limit if absent. */
  readonly outputLimit?: OutputLimit
  /** How outputs with a state for each token are reduced before they leave the inference thread. */
  readonly pooling?: TokenPooling
  /** Whether the CPU time of its execution is wanted beside the wall time. */
  readonly measuresCpu?: boolean
  /** 1 is the highest, 0 the default. */
  readonly priority: number
  /** Time limit for queueing and inference; null is no limit. */
  readonly timeoutMs: number | null
  /** Whether the client has disconnected. */
  readonly isCancelled: () => boolean
}

/** Queues a request and resolves with its outputs. */
export type Submit = (options: SubmitOptions) => Promise<{
  readonly outputs: readonly Tensor[]
  readonly queueNs: number
  readonly times: ExecutionTimes
}>
