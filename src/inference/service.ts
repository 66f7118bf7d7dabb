/** What a front end (REST, gRPC) gets to serve inference: the models, and `submit`. */
import type { OutOfService } from '../errors.js'
import type { ExecutionTimes, ModelRecorder } from '../metrics/recorder.js'
import type { ModelStatistics } from '../metrics/statistics.js'
import type { ModelConfiguration } from '../protocol/v2/configuration.js'
import type { ModelSpec } from '../protocol/v2/request.js'
import type { Tensor } from '../tensor.js'
import type { TextModel } from '../text/text-model.js'
import type { TokenPooling } from '../token-pooling.js'

export interface ServedModel extends ModelSpec {
  readonly counts: ModelRecorder
  /** What every process that serves it, or did, has counted. */
  statistics(): ModelStatistics
  /** Memory that all processes share for it. */
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  /** Names of classes, by output. */
  readonly labels: Readonly<Record<string, readonly string[]>>
  /** Where the model comes with a tokenizer: what answers texts. */
  readonly text: TextModel | null
  /** Keeps it loaded for as long as `work` takes. */
  use<T>(work: () => Promise<T>): Promise<T>
}

/** A model version that answers no request; it may be loaded, and may not. */
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
   * The named version if it is loaded; where none is named the newest that is in service, or else the newest that
   * is loaded.
   */
  find(name: string, version?: string): ServedModel | null
  /** Whether the named version is out of service; where none is named, whether all are, and then the newest. */
  outOfService(name: string, version?: string): VersionOutOfService | null
}

export interface SubmitOptions {
  readonly model: ServedModel
  readonly inputs: readonly Tensor[]
  readonly outputNames: readonly string[]
  /** What the outputs may take on the wire; without, anything. */
  readonly outputLimit?: { readonly bytes: number; readonly leastElementBytes: number[] }
  /** How outputs with a state for each token are reduced before they leave the inference thread. */
  readonly pooling?: TokenPooling
  /** 1 is the highest, 0 the default. */
  readonly priority: number
  /** For the wait in the queue and for the result; null is no limit. */
  readonly timeoutMs: number | null
  /** Whether the client has left. */
  readonly isCancelled: () => boolean
}

/** Queues a request and resolves with its outputs. */
export type Submit = (options: SubmitOptions) => Promise<{
  readonly outputs: readonly Tensor[]
  readonly queueNs: number
  readonly times: ExecutionTimes
}>
