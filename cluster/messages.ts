/**
 * Schemas of the messages between the primary and its workers. Messages carry paths and digests,
 * never weights.
 */
import * as z from 'zod'
import { ApiKeySchema } from '../src/access/api-keys.js'
import { repositoryIndexSchema } from '../src/api/schemas.js'
import { logLevelSchema } from '../src/api/server-control.js'
import { ServingConfigSchema } from '../src/config/config.js'
import { ErrorCodeSchema, OutOfServiceSchema } from '../src/error-schemas.js'
import { MountedBundleSchema } from '../src/ersilia/mounted.js'
import { TlsMaterialSchema } from '../src/http/tls.js'
import { StatsPageReferenceSchema } from '../src/metrics/page-reference.js'
import { ServedModelConfigSchema } from '../src/repository/config.js'
import { SegmentReferenceSchema } from '../src/segment/attach.js'

const segment = z.object({
  /** Identifies this generation of the model version. */
  key: z.string(),
  name: z.string(),
  version: z.string(),
  segment: SegmentReferenceSchema,
  config: ServedModelConfigSchema,
  /** Identifies the model version in the stats pages. */
  number: z.int().positive(),
  stats: StatsPageReferenceSchema,
})

/** A model version that refuses every request, loaded or not. */
const versionOutOfService = z.object({
  name: z.string(),
  version: z.string(),
  /** Counts its requests. */
  stats: StatsPageReferenceSchema,
  state: OutOfServiceSchema,
})

/**
 * Keys and certificates travel by value: a worker that starts while an invalid file is on disk gets
 * the last valid content.
 */
const secrets = z.object({
  apiKeys: z.array(ApiKeySchema).readonly().nullable(),
  tls: TlsMaterialSchema.nullable(),
})

/** Request counts for each client, over all workers. Used only where client limits are on. */
const clients = z.object({ page: StatsPageReferenceSchema, secret: z.string() })

/** A request from a worker to the primary, on behalf of a client. */
const controlRequest = z.discriminatedUnion('action', [
  z.object({ action: z.literal('index') }),
  z.object({ action: z.literal('load'), model: z.string(), config: z.string().nullable() }),
  z.object({ action: z.literal('unload'), model: z.string() }),
  z.object({ action: z.literal('setLogLevel'), level: logLevelSchema }),
])

const problem = z.object({
  code: ErrorCodeSchema,
  message: z.string(),
  headers: z.record(z.string(), z.string()),
})

export const ToWorkerSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('start'),
    config: ServingConfigSchema,
    segments: z.array(segment),
    outOfService: z.array(versionOutOfService),
    bundle: MountedBundleSchema.nullable(),
    identity: z.object({ name: z.string(), version: z.string() }),
    /** A worker removes this folder when the primary has died. */
    serverFolder: z.string(),
    /** This worker's slot in the stats pages. */
    statsSlot: z.int().nonnegative(),
    processStats: StatsPageReferenceSchema,
    unknownStats: StatsPageReferenceSchema,
    secrets,
    clients: clients.nullable(),
  }),
  /** API keys or a certificate were renewed. */
  z.object({ type: z.literal('secrets'), secrets }),
  /** Load a generation next to the one that serves. */
  z.object({ type: z.literal('prepare'), id: z.int().nonnegative(), segment }),
  /** Switch generations, by key. A retired generation is unloaded after its last request. */
  z.object({
    type: z.literal('change'),
    id: z.int().nonnegative(),
    activate: z.array(z.string()),
    retire: z.array(z.string()),
  }),
  /** A model version refuses every request from now on. */
  z.object({ type: z.literal('takeOut'), version: versionOutOfService }),
  /** A model version accepts requests again, if it is loaded. */
  z.object({ type: z.literal('putBack'), name: z.string(), version: z.string() }),
  /** The reply to `control`. */
  z.object({
    type: z.literal('controlled'),
    id: z.int().nonnegative(),
    index: repositoryIndexSchema.nullable(),
    problem: problem.nullable(),
  }),
  z.object({ type: z.literal('logLevel'), level: logLevelSchema }),
  z.object({ type: z.literal('drain') }),
  /** Close one busy connection. */
  z.object({ type: z.literal('shed') }),
])

export const ToPrimarySchema = z.discriminatedUnion('type', [
  /**
   * The first message: the primary sends nothing before it, because the worker would not receive
   * it.
   */
  z.object({ type: z.literal('hello') }),
  /** Port 0 means that the worker serves only on a Unix socket. */
  z.object({
    type: z.literal('ready'),
    port: z.int().nonnegative(),
    /**
     * Generations that failed to load. Their versions are out of service in this worker; the others
     * serve.
     */
    failed: z.array(z.object({ key: z.string(), state: OutOfServiceSchema })),
  }),
  z.object({
    type: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
  /** The reply to `prepare` and `change`. */
  z.object({
    type: z.literal('done'),
    id: z.int().nonnegative(),
    problem: z
      .object({
        code: ErrorCodeSchema,
        message: z.string(),
      })
      .nullable(),
  }),
  /** A client's request that concerns the whole server. */
  z.object({ type: z.literal('control'), id: z.int().nonnegative(), request: controlRequest }),
  /** A generation that was retired is unloaded. */
  z.object({ type: z.literal('unloaded'), key: z.string() }),
  /**
   * The inference thread has not responded for this long. The worker answers 503 until it receives
   * `drain`.
   */
  z.object({ type: z.literal('stalled'), silentMs: z.number().nonnegative() }),
  /** Load since the last report. An idle worker sends one final report and then none. */
  z.object({
    type: z.literal('load'),
    load: z.object({
      elapsedMs: z.number().nonnegative(),
      requests: z.int().nonnegative(),
      inFlightMs: z.number().nonnegative(),
      busyConnections: z.int().nonnegative(),
    }),
  }),
])

export type ToWorker = z.infer<typeof ToWorkerSchema>
export type ToPrimary = z.infer<typeof ToPrimarySchema>
export type SegmentMessage = z.infer<typeof segment>
export type OutOfServiceMessage = z.infer<typeof versionOutOfService>
export type SecretsMessage = z.infer<typeof secrets>
export type ControlRequest = z.infer<typeof controlRequest>
export type ControlAnswer = Omit<Extract<ToWorker, { type: 'controlled' }>, 'type' | 'id'>
export type ClientsMessage = z.infer<typeof clients>
export type StartMessage = Extract<ToWorker, { type: 'start' }>
