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
  /** Throws QUEUE_FULL, REQUEST_TOO_LARGE or SHUTTING_DOWN where a request with so many bytes of inputs would be refused anyway. */
  checkCapacity(model: ServedModel, inputBytes: number): void
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
  /** Models and log of the whole server; null where the public port does not offer them. */
  readonly control: ServerControl | null
  readonly hostPolicy: HostPolicy
  /** Where to look for a path that is on the other port; empty for others. */
  routeHint(path: string): string
  /** The body of an error on a path that no route has answered; null is the common one. */
  errorBodyOf(path: string, error: OnecopyError): unknown
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
