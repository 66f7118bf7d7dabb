/** What a serving process is given. */
import type { ApiKey } from '../access/api-keys.js'
import type { ClientCounts } from '../access/client-page.js'
import type { ServerControl } from '../api/server-control.js'
import type { ServingConfig } from '../config/config.js'
import type { Engine } from '../engine/engine.js'
import type { OutOfService } from '../errors.js'
import type { MountedBundle } from '../ersilia/mounted.js'
import type { ServerIdentity } from '../http/routes/health.js'
import type { TlsMaterial } from '../http/tls.js'
import type { VersionOutOfService } from '../inference/service.js'
import type { Log } from '../log.js'
import type { StatsPage } from '../metrics/page.js'
import type { ModelRecorder, ProcessRecorder } from '../metrics/recorder.js'
import type { Regions } from '../regions/regions.js'
import type { ServedModelConfig } from '../repository/config.js'
import type { SegmentReference } from '../segment/attach.js'

export interface SegmentToServe {
  /** Names this generation of the model version. */
  readonly key: string
  readonly name: string
  readonly version: string
  readonly segment: SegmentReference
  readonly config: ServedModelConfig
  /** Where this process says what its runtime works on; 1 or more, its own for every model version. */
  readonly number: number
  readonly counts: ModelRecorder
  /** Where all processes count the model version. */
  readonly statsPage: StatsPage
}

/** What is asked of clients, and what they are shown; can be renewed while a process serves. */
export interface Secrets {
  /** Null: everybody may ask. */
  readonly apiKeys: readonly ApiKey[] | null
  /** Null: plain HTTP. */
  readonly tls: TlsMaterial | null
}

export interface ServingOptions {
  readonly config: ServingConfig
  readonly segments: readonly SegmentToServe[]
  /** Versions that answer no request, whether or not they are among the segments. */
  readonly outOfService: readonly VersionOutOfService[]
  /** An Ersilia bundle, with its routes beside the protocol's. */
  readonly bundle: MountedBundle | null
  /** The server's folder in shared memory, for what workers tell each other about the bundle. */
  readonly serverFolder: string
  /** What this process says about itself. */
  readonly self: ProcessRecorder
  readonly unknownModel: ModelRecorder
  readonly secrets: Secrets
  /** Null: no client is limited. */
  readonly clientCounts: ClientCounts | null
  readonly identity: ServerIdentity
  /** Clients' shared memory; null where it is not enabled. */
  readonly regions: Regions | null
  /** Models and log of the whole server; null where the public port does not offer them. */
  readonly control: ServerControl | null
  readonly log: Log
  /** Of `beginEngine`; closed with this process. */
  readonly engine: Engine
  /** Called once with a bug; the process is expected to end soon after. */
  readonly onBug: (error: unknown) => void
  /** The inference thread does not come back: everything is answered with WORKER_STALLED, until `drain` is called. */
  readonly onStalled: (silentMs: number) => void
  /** A generation that was retired is unloaded. */
  readonly onUnloaded: (key: string) => void
}

/** A generation that this process could not load when it started: its version is out of service here. */
export interface FailedGeneration {
  readonly key: string
  readonly state: OutOfService
}
