/**
 * Every option of the server: where it may come from, its unit, its default and why. The same table
 * makes the flags (`--drain-timeout 30s`), the environment (`ONECOPY_DRAIN_TIMEOUT=30s`), the keys of a
 * config file (`"drainTimeout": "30s"`) and the help text.
 */
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { usableCpus } from '../process/cpus.js'
import { BREAKER_OPTIONS } from './breaker-options.js'
import { BUNDLE_OPTIONS } from './bundle-options.js'
import { CONTROL_OPTIONS } from './control-options.js'
import { ACCESS_OPTIONS, REQUEST_LOG_OPTIONS } from './defence-options.js'
import { hostAddress, integer, option, path } from './option.js'
import { durationMs, sizeBytes, timeLimitMs } from './quantities.js'
import { CACHE_SIZE_OPTIONS, SIZE_OPTIONS } from './size-options.js'
import { TEXT_OPTIONS } from './text-options.js'

const PACKAGE_ROOT = fileURLToPath(new URL('../../../', import.meta.url))

export const OPTIONS = {
  models: option({
    schema: path,
    value: 'DIR',
    group: 'Models',
    help: 'Model repository: NAME/VERSION/model.onnx, NAME.onnx or model.onnx.',
    default: () => join(PACKAGE_ROOT, 'models'),
    defaultHelp: 'the built-in model',
  }),
  ...CONTROL_OPTIONS,
  ...BUNDLE_OPTIONS,
  cacheDir: option({
    schema: path,
    value: 'DIR',
    group: 'Models',
    help: 'Compiled models, kept so that the next start compiles nothing. Best on a disk.',
    default: () => join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'onecopy'),
    defaultHelp: '$XDG_CACHE_HOME/onecopy or ~/.cache/onecopy',
  }),
  ...CACHE_SIZE_OPTIONS,
  compileTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Models',
    help: 'Longest time that compiling one model may take.',
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
    help: 'Port to serve inference on; 0 takes a free one.',
    default: () => 8080,
  }),
  adminHost: option({
    schema: hostAddress,
    value: 'H',
    group: 'Network',
    help: 'Address for metrics, probes and model control. Beyond this machine it needs keys (--admin-token, --api-keys-file), --admin-tls mutual or --admin-insecure on.',
    default: () => '127.0.0.1',
  }),
  adminPort: option({
    schema: integer(0, 65535),
    value: 'N',
    group: 'Network',
    help: 'Port for metrics and probes, answered by the primary; 0 takes a free one.',
    default: () => 9090,
  }),
  adminInsecure: option({
    schema: z.enum(['on', 'off'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: 'on: whoever reaches --admin-host may load and unload models and restart workers, without a key. For networks that something else guards.',
    default: () => 'off',
  }),
  adminAllowedHosts: option({
    schema: z.string().transform((names) => names.split(',').filter((name) => name !== '')),
    value: 'NAMES',
    group: 'Network',
    help: 'Names in the Host header that the admin port answers to, besides addresses, localhost, --admin-host and the name of this machine.',
    // A page under another name that resolves to this machine is not to reach it.
    default: () => '',
    defaultHelp: 'none',
    isList: true,
  }),
  headersTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'Longest time for the headers of a request to arrive, or for a new connection to say anything.',
    // Headers fit into a few packets: whoever takes longer is broken, or holds the connection on purpose.
    default: () => '10s',
  }),
  requestTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'Longest time for a whole request to arrive, from its first byte; computing it does not count.',
    // The largest body by default, 64 MiB, arrives in it at 9 Mbit/s.
    default: () => '60s',
  }),
  keepAliveTimeout: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Network',
    help: 'How long a connection may be silent between requests: longer than at the load balancer in front.',
    // Common load balancers keep theirs for 60 s. The shorter side closes, and a request that crosses with
    // the close is lost: so that must be the balancer, which knows what it has sent.
    default: () => '65s',
  }),
  adminToken: option({
    schema: z
      .string()
      .refine((token) => token === '' || token.length >= 16, 'expected at least 16 characters'),
    value: 'TOKEN',
    group: 'Network',
    help: 'Asked for (Authorization: Bearer) before models or workers are changed on the admin port. Better in the environment: flags are seen by everybody.',
    default: () => '',
    defaultHelp: 'none',
  }),
  ...ACCESS_OPTIONS,
  docs: option({
    schema: z.enum(['on', 'off'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: 'The page /docs, on which every route can be tried, and its document /openapi.json, on both ports.',
    default: () => 'on',
  }),
  workers: option({
    schema: integer(1, 1024),
    value: 'N',
    group: 'Processes',
    help: 'Worker processes. Each computes one request at a time and maps the same weights.',
    default: () => usableCpus(),
    defaultHelp: "the CPUs this process may use: cgroup quota and affinity, not the host's count",
  }),
  threads: option({
    schema: integer(1, 1024),
    value: 'N',
    group: 'Processes',
    help: 'Threads inside one inference. More workers usually beat more threads.',
    default: () => 1,
  }),
  bootTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'Longest time a worker may take to start, and then to load its models.',
    default: () => '2m',
  }),
  stallTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'A worker whose inference thread or event loop is silent for longer is replaced; its requests are answered with 503. Above the longest run of any model.',
    default: () => '2m',
  }),
  ...BREAKER_OPTIONS,
  maxRequestsPerWorker: option({
    schema: integer(0, Number.MAX_SAFE_INTEGER),
    value: 'N',
    group: 'Processes',
    help: 'A worker that has counted so many requests is replaced by a fresh one, without losing any; 0 never.',
    default: () => 0,
  }),
  maxPrivateMemory: option({
    schema: z.union([z.literal('0').transform(() => 0), sizeBytes]),
    value: 'SIZE',
    group: 'Memory',
    help: 'A worker that holds more memory of its own, weights not counted, is replaced by a fresh one; 0 never.',
    default: () => '0',
  }),
  drainTimeout: option({
    schema: durationMs,
    value: 'TIME',
    group: 'Processes',
    help: 'On SIGTERM, longest time to finish what was accepted before workers are killed.',
    default: () => '30s',
  }),
  segmentDir: option({
    schema: path,
    value: 'DIR',
    group: 'Memory',
    help: 'Where the shared weights live: a tmpfs, so that they are memory and nothing else.',
    default: () => '/dev/shm',
  }),
  rawWeights: option({
    schema: z.enum(['release', 'keep'], 'expected release or keep'),
    value: 'MODE',
    group: 'Memory',
    help: 'release: weights that only a load needs are in shared memory only meanwhile, where --cache-dir is on a disk; keep: always, which loads sooner.',
    default: () => 'release',
  }),
  ...SIZE_OPTIONS,
  ...TEXT_OPTIONS,
  maxQueue: option({
    schema: integer(1, 1_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Requests that may wait in one worker; more are refused with 503.',
    default: () => 256,
  }),
  maxConnections: option({
    schema: integer(0, 1_000_000),
    value: 'N',
    group: 'Limits',
    help: 'Connections that one worker holds; more are closed at once. Below `ulimit -n`; 0 is unlimited.',
    // An idle one costs some 10 kB: 100 MB at the most.
    default: () => 10_240,
  }),
  deadlineStatus: option({
    schema: integer(503, 504),
    value: 'N',
    group: 'Limits',
    help: 'Status of a request whose deadline passed: 504, or 503 as Triton answers.',
    default: () => 504,
  }),
  systemSharedMemory: option({
    schema: z.enum(['off', 'on'], 'expected on or off').transform((word) => word === 'on'),
    value: 'on|off',
    group: 'Network',
    help: "Clients may register POSIX shared memory objects for tensors. Whoever reaches the port can then read and write this user's objects.",
    default: () => 'off',
  }),
  logLevel: option({
    schema: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal']),
    value: 'L',
    group: 'Logs and metrics',
    help: 'trace, debug (one line a request), info, warn, error or fatal.',
    default: () => 'info',
  }),
  logFormat: option({
    schema: z.enum(['auto', 'json', 'pretty'], 'expected auto, json or pretty'),
    value: 'FORMAT',
    group: 'Logs and metrics',
    help: 'json: one object a line; pretty: lines for people; auto: pretty on a terminal, json elsewhere.',
    default: () => 'auto',
  }),
  metricsAliases: option({
    schema: z.enum(['none', 'triton'], 'expected none or triton'),
    value: 'NAMES',
    group: 'Logs and metrics',
    help: "triton: what is counted also under Triton's names (nv_inference_*), for dashboards made for it.",
    default: () => 'none',
  }),
  ...REQUEST_LOG_OPTIONS,
} as const

export type OptionName = keyof typeof OPTIONS

/** Every option, checked. */
export type Parsed = { -readonly [Name in OptionName]: z.output<(typeof OPTIONS)[Name]['schema']> }
