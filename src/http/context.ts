import type { ServerControl } from '../api/server-control.js'
import type { OnecopyError } from '../errors.js'
import type { ModelDirectory, ServedModel, Submit } from '../inference/service.js'
import type { Log } from '../log.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import type { Regions } from '../regions/regions.js'
import type { Connections } from './connections.js'
import type { HostPolicy } from './cross-origin.js'
import type { Defences } from './defences.js'
import type { LargeExchanges } from './large-exchanges.js'
import type { Observation } from './observe/observed.js'

export interface HttpContext {
  readonly models: ModelDirectory
  readonly submit: Submit
  /**
   * Throws QUEUE_FULL, REQUEST_TOO_LARGE or SHUTTING_DOWN if a request with this many input bytes would be
   * rejected.
   */
  checkCapacity(model: ServedModel, inputBytes: number): void
  /** Counts requests for unknown models together: clients must not be able to create label values. */
  readonly unknownModel: ModelRecorder
  readonly connections: Connections
  readonly defences: Defences
  readonly observation: Observation
  readonly log: Log
  /** Folders of this server that no response may contain. */
  readonly localFolders: readonly string[]
  readonly maxBodyBytes: number
  readonly maxResponseBytes: number
  readonly largeExchanges: LargeExchanges
  /** Shared memory of clients; null if not enabled. */
  readonly regions: Regions | null
  /** Model and log control of the whole server; null if the public port does not offer it. */
  readonly control: ServerControl | null
  readonly hostPolicy: HostPolicy
  /** A hint for a path that exists on the other port; otherwise empty. */
  routeHint(path: string): string
  /** The body of an error on a path without a route; null for the default body. */
  errorBodyOf(path: string, error: OnecopyError): unknown
  /** Status of a request that exceeded its deadline. */
  readonly deadlineStatus: 503 | 504
  /** Whether the routes of an Ersilia bundle are served. */
  readonly hasBundle: boolean
  /** Whether the OpenAPI document and its page are served. */
  readonly hasDocs: boolean
  /** Whether a model is in service, or none is required, and the server is not draining. */
  isReady(): boolean
  /** Whether the server drains; every response then closes its connection. */
  isDraining(): boolean
  /** Reports a bug, after its request was answered with 500. */
  onBug(error: unknown): void
}
