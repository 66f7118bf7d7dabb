/** The options of a serving process. */
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
  /** Identifies this generation of the model version. */
  readonly key: string
  readonly name: string
  readonly version: string
  readonly segment: SegmentReference
  readonly config: ServedModelConfig
  /**
   * Number of the model version, at least 1, under which this process records what its runtime is running.
   */
  readonly number: number
  readonly counts: ModelRecorder
  /** The page in which all processes count requests of the model version. */
  readonly statsPage: StatsPage
}

/** API keys and the TLS certificate, which can be renewed while a process serves. */
export interface Secrets {
  /** Null if no key is required. */
  readonly apiKeys: readonly ApiKey[] | null
  /** Null for plain HTTP. */
  readonly tls: TlsMaterial | null
}

export interface ServingOptions {
  readonly config: ServingConfig
  readonly segments: readonly SegmentToServe[]
  /** Versions that are out of service, loaded or not. */
  readonly outOfService: readonly VersionOutOfService[]
  /** An Ersilia bundle, which adds its routes to those of the protocol. */
  readonly bundle: MountedBundle | null
  /** The server's folder in shared memory, through which workers share the state of the bundle. */
  readonly serverFolder: string
  /** Where this process reports its state. */
  readonly self: ProcessRecorder
  readonly unknownModel: ModelRecorder
  readonly secrets: Secrets
  /** Null without client limits. */
  readonly clientCounts: ClientCounts | null
  readonly identity: ServerIdentity
  /** Shared memory of clients; null if not enabled. */
  readonly regions: Regions | null
  /** Model and log control of the whole server; null if the public port does not offer it. */
  readonly control: ServerControl | null
  readonly log: Log
  /** Closed with this process. Its thread takes time to start, so it is created early. */
  readonly engine: Engine
  /** Called once with a bug; the process is expected to end soon after. */
  readonly onBug: (error: unknown) => void
  /**
   * The inference thread has stalled: every request is answered with WORKER_STALLED until `drain` is called.
   */
  readonly onStalled: (silentMs: number) => void
  /** A retired generation is unloaded. */
  readonly onUnloaded: (key: string) => void
}

/** A generation that this process could not load at startup; its version is out of service here. */
export interface FailedGeneration {
  readonly key: string
  readonly state: OutOfService
}
