/** The schema of every message between the primary and its workers. They carry paths and digests, never bytes. */
import { z } from 'zod'
import { ApiKeySchema } from '../src/access/api-keys.js'
import { ServingConfigSchema } from '../src/config/config.js'
import { ErrorCodeSchema, OutOfServiceSchema } from '../src/errors.js'
import { MountedBundleSchema } from '../src/ersilia/mounted.js'
import { TlsMaterialSchema } from '../src/http/tls.js'
import { StatsPageReferenceSchema } from '../src/metrics/page.js'
import { ServedModelConfigSchema } from '../src/repository/config.js'
import { SegmentReferenceSchema } from '../src/segment/attach.js'

const segment = z.object({
  /** Names this generation of the model version. */
  key: z.string(),
  name: z.string(),
  version: z.string(),
  segment: SegmentReferenceSchema,
  config: ServedModelConfigSchema,
  /** How the stats pages name the model version. */
  number: z.int().positive(),
  stats: StatsPageReferenceSchema,
})

/** A model version that answers no request, loaded or not. */
const versionOutOfService = z.object({
  name: z.string(),
  version: z.string(),
  /** Where its requests are counted. */
  stats: StatsPageReferenceSchema,
  state: OutOfServiceSchema,
})

/** The exception to digests only: a worker that starts while a bad file lies on the disk gets the last good one. */
const secrets = z.object({
  apiKeys: z.array(ApiKeySchema).readonly().nullable(),
  tls: TlsMaterialSchema.nullable(),
})

/** How much clients ask for, over all workers: counted where limits are on. */
const clients = z.object({ page: StatsPageReferenceSchema, secret: z.string() })

export const ToWorkerSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('start'),
    config: ServingConfigSchema,
    segments: z.array(segment),
    outOfService: z.array(versionOutOfService),
    bundle: MountedBundleSchema.nullable(),
    identity: z.object({ name: z.string(), version: z.string() }),
    /** Folder that a worker removes when the primary is gone and cannot. */
    serverFolder: z.string(),
    /** The slot of the stats pages that is this worker's. */
    statsSlot: z.int().nonnegative(),
    processStats: StatsPageReferenceSchema,
    unknownStats: StatsPageReferenceSchema,
    secrets,
    clients: clients.nullable(),
  }),
  /** Keys or a certificate were renewed. */
  z.object({ type: z.literal('secrets'), secrets }),
  /** Load a generation beside what answers. */
  z.object({ type: z.literal('prepare'), id: z.int().nonnegative(), segment }),
  /** Change what answers: generations by key. What is retired is unloaded when its last request is answered. */
  z.object({
    type: z.literal('change'),
    id: z.int().nonnegative(),
    activate: z.array(z.string()),
    retire: z.array(z.string()),
  }),
  /** A model version answers no request from here on. */
  z.object({ type: z.literal('takeOut'), version: versionOutOfService }),
  /** A model version answers again, where it is loaded. */
  z.object({ type: z.literal('putBack'), name: z.string(), version: z.string() }),
  z.object({ type: z.literal('drain') }),
  /** Give up one busy connection. */
  z.object({ type: z.literal('shed') }),
])

export const ToPrimarySchema = z.discriminatedUnion('type', [
  /** The first word: a message sent before the worker listens would be lost. */
  z.object({ type: z.literal('hello') }),
  /** Port 0: it serves on none, only on a Unix socket. */
  z.object({
    type: z.literal('ready'),
    port: z.int().nonnegative(),
    /** Generations that it could not load: their versions are out of service in it, and the others serve. */
    failed: z.array(z.object({ key: z.string(), state: OutOfServiceSchema })),
  }),
  z.object({
    type: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
  /** The answer to `prepare` and `change`. */
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
  /** A generation that was retired is unloaded. */
  z.object({ type: z.literal('unloaded'), key: z.string() }),
  /** The inference thread has been silent for so long: everything is answered with 503 until `drain` comes. */
  z.object({ type: z.literal('stalled'), silentMs: z.number().nonnegative() }),
  /** What was carried since the last report; nothing comes while there is nothing, but for one report that says so. */
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
export type ClientsMessage = z.infer<typeof clients>
export type StartMessage = Extract<ToWorker, { type: 'start' }>
