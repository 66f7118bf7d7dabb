/**
 * The validated configuration: of the whole server, and the subset that a serving process needs.
 */

import * as z from 'zod'
import { type LogFormat, logFormatOf } from '../log.js'
import type { BreakerConfig } from './breaker-options.js'
import type { Parsed } from './schema.js'
import { RECEIVING_PER_BODY, RESPONSE_PER_BODY } from './size-options.js'

/** Measured: docs/decisions/027-placement.md. */
export const DEFAULT_INLINE_BUDGET_MS = 2

/** The whole configuration, validated and frozen. Durations are in milliseconds, sizes in bytes. */
export interface Config {
  /** Model repositories, folders of models and model files. */
  readonly modelPaths: readonly string[]
  readonly modelControl: Parsed['modelControl']
  /** Only with explicit model control; `*` means all. */
  readonly loadModels: readonly string[]
  readonly repositoryApi: Parsed['repositoryApi']
  /** Whether one model that cannot be served is a reason not to start. */
  readonly exitsOnError: boolean
  /** A bundle or an ONNX file that replaces the repository. */
  readonly only: { readonly path: string; readonly name: string | null } | null
  readonly redisUrl: string
  readonly cacheDir: string
  /** 0 means no limit. */
  readonly cacheMaxBytes: number
  readonly compileTimeoutMs: number
  readonly host: string
  readonly port: number
  /** Null: no gRPC. */
  readonly grpcPort: number | null
  /** False: neither the port nor the admin port, only the Unix socket. */
  readonly isHttp: boolean
  /** Empty: not configured. */
  readonly socketPath: string
  readonly adminHost: string
  readonly adminPort: number
  readonly adminAllowedHosts: readonly string[]
  /** Empty: no token is required. */
  readonly adminToken: string
  /** File paths; empty when not configured. */
  readonly apiKeysFile: string
  readonly tlsCertPath: string
  readonly tlsKeyPath: string
  readonly tlsCaPath: string
  readonly adminTls: Parsed['adminTls']
  /** The raw option value, not parsed yet. */
  readonly apiKeys: string
  readonly rateLimit: Parsed['rateLimit']
  /** 0 means no limit. */
  readonly maxClientRequests: number
  readonly trustedProxies: number
  /** `*` means all. */
  readonly corsOrigins: readonly string[]
  readonly isAccessLogOn: boolean
  readonly isServerTimingOn: boolean
  /** Empty: no traces are exported. */
  readonly otlpEndpoint: string
  readonly hasDocs: boolean
  readonly workers: number
  readonly threads: number
  readonly bootTimeoutMs: number
  readonly drainTimeoutMs: number
  readonly stallTimeoutMs: number
  /** 0: nothing runs on the event loop. */
  readonly inlineBudgetMs: number
  readonly breaker: BreakerConfig
  /** 0 means no limit. */
  readonly maxRequestsPerWorker: number
  /** 0 means no limit. */
  readonly maxPrivateBytes: number
  readonly segmentDir: string
  readonly rawWeights: Parsed['rawWeights']
  readonly headersTimeoutMs: number
  readonly requestTimeoutMs: number
  readonly keepAliveTimeoutMs: number
  readonly maxConnections: number
  readonly maxBodyBytes: number
  readonly maxResponseBytes: number
  readonly maxReceivingBytes: number
  readonly maxQueuedRequests: number
  readonly maxBatchTokens: number
  readonly deadlineStatus: 503 | 504
  readonly systemSharedMemory: boolean
  readonly logLevel: Parsed['logLevel']
  readonly logFormat: LogFormat
  readonly metricsAliases: Parsed['metricsAliases']
}

export function toConfig(options: Parsed, modelPaths: readonly string[]): Config {
  return Object.freeze({
    modelPaths,
    modelControl: options.modelControl,
    loadModels: options.loadModel,
    repositoryApi: options.repositoryApi,
    exitsOnError: options.exitOnError,
    only: options.bundle === '' ? null : { path: options.bundle, name: null },
    redisUrl: options.redisUrl,
    cacheDir: options.cacheDir,
    cacheMaxBytes: options.cacheMaxSize,
    compileTimeoutMs: options.compileTimeout,
    host: options.host,
    port: options.port,
    grpcPort: options.grpcPort,
    isHttp: true,
    socketPath: options.socket,
    adminHost: options.adminHost,
    adminPort: options.adminPort,
    adminAllowedHosts: options.adminAllowedHosts,
    adminToken: options.adminToken,
    apiKeysFile: options.apiKeysFile,
    tlsCertPath: options.tlsCert,
    tlsKeyPath: options.tlsKey,
    tlsCaPath: options.tlsCa,
    adminTls: options.adminTls,
    apiKeys: options.apiKeys,
    rateLimit: options.rateLimit,
    maxClientRequests: options.maxClientRequests,
    trustedProxies: options.trustedProxies,
    corsOrigins: options.corsOrigin,
    isAccessLogOn: options.accessLog,
    isServerTimingOn: options.serverTiming,
    otlpEndpoint: options.otlpEndpoint,
    hasDocs: options.docs,
    workers: options.workers,
    threads: options.threads,
    bootTimeoutMs: options.bootTimeout,
    drainTimeoutMs: options.drainTimeout,
    stallTimeoutMs: options.stallTimeout,
    inlineBudgetMs: options.inline ?? DEFAULT_INLINE_BUDGET_MS,
    breaker: { failureLimit: options.breakerLimit, firstBackoffMs: options.breakerBackoff },
    maxRequestsPerWorker: options.maxRequestsPerWorker,
    maxPrivateBytes: options.maxPrivateMemory,
    segmentDir: options.segmentDir,
    rawWeights: options.rawWeights,
    headersTimeoutMs: options.headersTimeout,
    requestTimeoutMs: options.requestTimeout,
    keepAliveTimeoutMs: options.keepAliveTimeout,
    maxConnections: options.maxConnections,
    maxBodyBytes: options.maxBody,
    maxResponseBytes: options.maxResponse ?? options.maxBody * RESPONSE_PER_BODY,
    maxReceivingBytes: options.maxReceiving ?? options.maxBody * RECEIVING_PER_BODY,
    maxQueuedRequests: options.maxQueue,
    maxBatchTokens: options.maxBatchTokens,
    deadlineStatus: options.deadlineStatus === 503 ? 503 : 504,
    systemSharedMemory: options.systemSharedMemory,
    logLevel: options.logLevel,
    logFormat: logFormatOf(options.logFormat),
    metricsAliases: options.metricsAliases,
  })
}

/**
 * The subset of the configuration that a serving process needs. Sent to the workers as a message.
 */
export const ServingConfigSchema = z.object({
  /** Whether readiness requires at least one served model. */
  isModelRequired: z.boolean(),
  modelControl: z.enum(['fixed', 'watch', 'explicit']),
  repositoryApi: z.enum(['admin', 'public', 'off']),
  adminPort: z.int(),
  adminAllowedHosts: z.array(z.string()).readonly(),
  /** Of the admin token; null where none is asked for. */
  adminTokenSha256: z.string().nullable(),
  host: z.string(),
  port: z.int(),
  grpcPort: z.int().nullable(),
  isHttp: z.boolean(),
  socketPath: z.string(),
  redisUrl: z.string(),
  threads: z.int().positive(),
  drainTimeoutMs: z.number().nonnegative(),
  stallTimeoutMs: z.number().nonnegative(),
  inlineBudgetMs: z.number().nonnegative(),
  headersTimeoutMs: z.number().positive(),
  requestTimeoutMs: z.number().positive(),
  keepAliveTimeoutMs: z.number().positive(),
  maxConnections: z.int().nonnegative(),
  maxBodyBytes: z.int().positive(),
  maxResponseBytes: z.int().positive(),
  maxReceivingBytes: z.int().positive(),
  hasDocs: z.boolean(),
  maxQueuedRequests: z.int().positive(),
  maxBatchTokens: z.int().positive(),
  deadlineStatus: z.union([z.literal(503), z.literal(504)]),
  systemSharedMemory: z.boolean(),
  rateLimit: z.object({ requests: z.int().positive(), windowMs: z.number().positive() }).nullable(),
  maxClientRequests: z.int().nonnegative(),
  trustedProxies: z.int().nonnegative(),
  corsOrigins: z.array(z.string()).readonly(),
  isAccessLogOn: z.boolean(),
  isServerTimingOn: z.boolean(),
  otlpEndpoint: z.string(),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']),
  logFormat: z.enum(['json', 'pretty']),
})

export type ServingConfig = z.infer<typeof ServingConfigSchema>
