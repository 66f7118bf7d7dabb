/** What the routes are given: no route reaches for a global. */
import type { OnecopyError, OutOfService } from '../errors.js'
import type { Log } from '../log.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import type { ModelStatistics } from '../metrics/statistics.js'
import type { ModelConfiguration } from '../protocol/v2/configuration.js'
import type { ModelSpec } from '../protocol/v2/request.js'
import type { Regions } from '../regions/regions.js'
import type { Tensor } from '../tensor.js'
import type { Connections } from './connections.js'
import type { Defences } from './defences.js'
import type { LargeExchanges } from './large-exchanges.js'
import type { Observation } from './observe/observed.js'
import type { RequestTimings } from './observe/timings.js'

export interface ServedModel extends ModelSpec {
  readonly counts: ModelRecorder
  /** What every process that serves it, or did, has counted. */
  statistics(): ModelStatistics
  /** Memory that all processes share for it. */
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  /** Names of classes, by output. */
  readonly labels: Readonly<Record<string, readonly string[]>>
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
  /** 1 is the highest, 0 the default. */
  readonly priority: number
  /** For the wait in the queue and for the result; null is no limit. */
  readonly timeoutMs: number | null
  /** Whether the client has left. */
  readonly isCancelled: () => boolean
}

/** The scheduler's door, handed in by the server. */
export type Submit = (
  options: SubmitOptions,
) => Promise<{ readonly outputs: readonly Tensor[]; readonly queueNs: number }>

export interface HttpContext {
  readonly models: ModelDirectory
  readonly submit: Submit
  /** Throws QUEUE_FULL, REQUEST_TOO_LARGE or SHUTTING_DOWN where a request with so many bytes of inputs would be refused anyway. */
  checkRoom(model: ServedModel, inputBytes: number): void
  /** Where requests count that name no model that exists: a client must not be able to make up label values. */
  readonly unknownModel: ModelRecorder
  readonly connections: Connections
  readonly defences: Defences
  readonly observation: Observation
  readonly log: Log
  /** Folders of this server that no answer names. */
  readonly localFolders: readonly string[]
  readonly maxBodyBytes: number
  readonly maxResponseBytes: number
  readonly largeExchanges: LargeExchanges
  /** Clients' shared memory; null where it is not enabled. */
  readonly regions: Regions | null
  /** Status of a request whose deadline passed. */
  readonly deadlineStatus: 503 | 504
  /** Whether an Ersilia bundle brings its routes. */
  readonly hasBundle: boolean
  /** Whether the API's document and its page are served. */
  readonly hasDocs: boolean
  /** Whether any model is in service, or there is none to serve, and the server is not draining. */
  isReady(): boolean
  /** While draining every response closes its connection. */
  isDraining(): boolean
  /** A bug: reported after its request was answered with 500. */
  onBug(error: unknown): void
}

export interface RequestState {
  requestId: string
  /** The model version that a request turned out to be about. */
  model?: Pick<ServedModel, 'name' | 'version' | 'counts'>
  errorCode?: string
  /** Memory that the request and its answer took outside the heap, as far as it is large. */
  heldBytes?: number
  /** Name of the API key that the request came with. */
  keyName?: string
  /** Only where somebody wants to know. */
  timings?: RequestTimings
  /** The body of an error, where a route's clients expect another than `{"error": ...}`. */
  errorBody?: (error: OnecopyError) => unknown
}
