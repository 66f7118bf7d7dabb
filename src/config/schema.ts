/**
 * Every option of the server with its unit, its default and the reason for it. This table defines the flags
 * (`--drain-timeout 30s`), the environment variables (`ONECOPY_DRAIN_TIMEOUT=30s`), the keys of a config file
 * (`"drainTimeout": "30s"`) and the help text.
 */

import { homedir } from 'node:os'
import { join } from 'node:path'
import * as z from 'zod'
import { PACKAGE_ROOT } from '../installation.js'
import { usableCpus } from '../process/cpus.js'
import { BREAKER_OPTIONS } from './breaker-options.js'
import { BUNDLE_OPTIONS } from './bundle-options.js'
import { CONTROL_OPTIONS } from './control-options.js'
import { ACCESS_OPTIONS, REQUEST_LOG_OPTIONS } from './defence-options.js'
import { hostAddress, integer, option, path } from './option.js'
import { durationMs, names, sizeBytes, timeLimitMs } from './quantities.js'
import { CACHE_SIZE_OPTIONS, SIZE_OPTIONS } from './size-options.js'
import { TEXT_OPTIONS } from './text-options.js'

export const OPTIONS = {
  models: option({
    schema: path,
    value: 'PATH',
    group: 'Models',
    help: 'Model repository (NAME/VERSION/model.onnx, NAME.onnx or model.onnx), folder of a model, or model file; as PATH of serve.',
    default: () => join(PACKAGE_ROOT, 'models'),
    defaultHelp: 'the built-in model',
  }),
  ...CONTROL_OPTIONS,
  ...BUNDLE_OPTIONS,
  cacheDir: option({
    schema: path,
    value: 'DIR',
    group: 'Models',
    help: 'Cache of compiled models, so that the next start compiles nothing. Best on a disk.',
    default: () => join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'onecopy'),
    defaultHelp: '$XDG_CACHE_HOME/onecopy or ~/.cache/onecopy',
  }),
  ...CACHE_SIZE_OPTIONS,
  compileTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Models',
    help: 'Time limit for compiling one model.',
    default: () => '10m',
  }),
  host: option({
    schema: hostAddress,
    value: 'H',
    group: 'Network',
    help: 'Address to serve inference on; 0.0.0.0 in a container.',
    default: () => '127.0.0.1',
  }),
  port: option({
    schema: integer(0, 65535),
    value: 'N',
    group: 'Network',
    help: 'Port to serve inference on; 0 picks a free port.',
    default: () => 8080,
  }),
  grpcPort: option({
    schema: z.union([z.literal('').transform(() => null), integer(0, 65535)]),
    value: 'N',
    group: 'Network',
    help: 'Port to serve gRPC on, on the same address (inference.GRPCInferenceService); 0 takes a free one.',
    default: () => '',
    defaultHelp: 'none: no gRPC',
  }),
  adminHost: option({
    schema: hostAddress,
    value: 'H',
    group: 'Network',
    help: 'Address for metrics, probes and model control. A non-loopback address requires --admin-token, --api-keys-file, --admin-tls mutual or --admin-insecure on.',
    default: () => '127.0.0.1',
  }),
  adminPort: option({
    schema: integer(0, 65535),
    value: 'N',
    group: 'Network',
    help: 'Port for metrics and probes, served by the primary; 0 picks a free port.',
    default: () => 9090,
  }),
  adminInsecure: option({
    schema: z.enum(['on', 'off'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: 'on: anyone who reaches --admin-host can load and unload models and restart workers without a key. Use only on protected networks.',
    default: () => 'off',
  }),
  adminAllowedHosts: option({
    schema: names.pipe(z.array(hostAddress)),
    value: 'NAMES',
    group: 'Network',
    help: 'Additional Host header names accepted on the admin port. Addresses, localhost, --admin-host and the host name are always accepted.',
    // Protects against DNS rebinding: web pages under other names that resolve to this machine are rejected.
    default: () => '',
    defaultHelp: 'none',
    isList: true,
  }),
  headersTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'Time limit for receiving the headers of a request, also for the first request on a new connection.',
    // Headers fit into a few packets. A slower client is broken or holds the connection on purpose.
    default: () => '10s',
  }),
  requestTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'Time limit for receiving a whole request, from its first byte. Inference time does not count.',
    // The default body limit, 64 MiB, arrives within this time at 9 Mbit/s.
    default: () => '60s',
  }),
  keepAliveTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'Idle time after which a connection is closed. Keep it longer than the idle timeout of the load balancer in front.',
    // Common load balancers use 60 s. The side with the shorter timeout closes the connection, and a request
    // sent at that moment is lost. Only the balancer knows what it has sent, so it must be the one to close.
    default: () => '65s',
  }),
  adminToken: option({
    schema: z
      .string()
      .refine((token) => token === '' || token.length >= 16, 'expected at least 16 characters'),
    value: 'TOKEN',
    group: 'Network',
    help: 'Bearer token required to change models or workers on the admin port. Prefer the environment variable: other users can see flags.',
    default: () => '',
    defaultHelp: 'none',
  }),
  ...ACCESS_OPTIONS,
  docs: option({
    schema: z.enum(['on', 'off'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: 'The page /docs, where every route can be tried, and its OpenAPI document /openapi.json, on both ports.',
    default: () => 'on',
  }),
  workers: option({
    schema: integer(1, 1024),
    value: 'N',
    group: 'Processes',
    help: 'Worker processes. Each runs one inference at a time and maps the same weights.',
    default: () => usableCpus(),
    defaultHelp: "the CPUs available to this process (cgroup quota and affinity), not the host's count",
  }),
  threads: option({
    schema: integer(1, 1024),
    value: 'N',
    group: 'Processes',
    help: 'Threads per inference. More workers usually beat more threads.',
    default: () => 1,
  }),
  inline: option({
    schema: z.union(
      [z.literal('auto').transform(() => null), z.literal('off').transform(() => 0), timeLimitMs],
      'expected auto, off or a duration such as 2ms',
    ),
    value: 'TIME',
    group: 'Processes',
    help: 'Longest inference that runs on the event loop; longer ones, and those of unknown cost, run in the inference thread. off: all of them do.',
    default: () => 'auto',
    defaultHelp: 'auto: 2ms',
  }),
  bootTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'Time limit for a worker to start, and again for it to load its models.',
    default: () => '2m',
  }),
  stallTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'A worker whose inference thread or event loop does not respond for this long is replaced; its requests get 503. Must exceed the longest inference.',
    default: () => '2m',
  }),
  ...BREAKER_OPTIONS,
  maxRequestsPerWorker: option({
    schema: integer(0, Number.MAX_SAFE_INTEGER),
    value: 'N',
    group: 'Processes',
    help: 'Requests after which a worker is replaced by a fresh one, without losing any request; 0 disables.',
    default: () => 0,
  }),
  maxPrivateMemory: option({
    schema: z.union([z.literal('0').transform(() => 0), sizeBytes]),
    value: 'SIZE',
    group: 'Memory',
    help: 'Private memory, without the shared weights, above which a worker is replaced by a fresh one; 0 disables.',
    default: () => '0',
  }),
  drainTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'Time after SIGTERM to finish accepted requests before workers are killed.',
    default: () => '30s',
  }),
  segmentDir: option({
    schema: path,
    value: 'DIR',
    group: 'Memory',
    help: 'Directory for the shared weights. Use a tmpfs, so that they stay in memory only.',
    default: () => '/dev/shm',
  }),
  rawWeights: option({
    schema: z.enum(['release', 'keep'], 'expected release or keep'),
    value: 'MODE',
    group: 'Memory',
    help: 'release: weights needed only while loading leave shared memory afterwards (requires --cache-dir on a disk); keep: they stay, so loads are faster.',
    default: () => 'release',
  }),
  ...SIZE_OPTIONS,
  ...TEXT_OPTIONS,
  maxQueue: option({
    schema: integer(1, 1_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Queue capacity of one worker; further requests are rejected with 503.',
    default: () => 256,
  }),
  maxConnections: option({
    schema: integer(0, 1_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Connections per worker; further connections are closed immediately. Keep it below `ulimit -n`; 0 is unlimited.',
    // An idle connection costs about 10 kB, so the default costs at most 100 MB.
    default: () => 10_240,
  }),
  deadlineStatus: option({
    schema: integer(503, 504),
    value: 'N',
    group: 'Limits',
    help: 'Status of a request that misses its deadline: 504, or 503 like Triton.',
    default: () => 504,
  }),
  systemSharedMemory: option({
    schema: z.enum(['off', 'on'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: 'Lets clients register POSIX shared memory objects for tensors. Anyone who reaches the port can then read and write the objects of this user.',
    default: () => 'off',
  }),
  logLevel: option({
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']),
    value: 'L',
    group: 'Logs and metrics',
    help: 'trace, debug (one line per request), info, warn, error or fatal.',
    default: () => 'info',
  }),
  logFormat: option({
    schema: z.enum(['auto', 'json', 'pretty'], 'expected auto, json or pretty'),
    value: 'FORMAT',
    group: 'Logs and metrics',
    help: 'json: one object per line; pretty: human-readable lines; auto: pretty on a terminal, otherwise json.',
    default: () => 'auto',
  }),
  metricsAliases: option({
    schema: z.enum(['none', 'triton'], 'expected none or triton'),
    value: 'NAMES',
    group: 'Logs and metrics',
    help: 'triton: also exports the metrics under their Triton names (nv_inference_*), for existing dashboards.',
    default: () => 'none',
  }),
  ...REQUEST_LOG_OPTIONS,
} as const

export type OptionName = keyof typeof OPTIONS

/** All options after validation. */
export type Parsed = { -readonly [Name in OptionName]: z.output<(typeof OPTIONS)[Name]['schema']> }
