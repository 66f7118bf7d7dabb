/** Options for access control, rate limits, TLS, request logs and traces. */
import * as z from 'zod'
import { integer, option, optionalPath } from './option.js'
import { origins, rateLimit, serviceUrl, switchedOn } from './quantities.js'

export const ACCESS_OPTIONS = {
  apiKeysFile: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'Access',
    help: 'File of API keys, one NAME:SHA256:SCOPES per line (create them with onecopy key). Reloaded when it changes.',
    default: () => '',
    defaultHelp: 'none: no key is required',
  }),
  apiKeys: option({
    schema: z.string(),
    value: 'KEYS',
    group: 'Access',
    help: 'API keys as text, separated by semicolons, in addition to --api-keys-file.',
    default: () => '',
    defaultHelp: 'none: no key is required',
  }),
  rateLimit: option({
    schema: rateLimit,
    value: 'N/TIME',
    group: 'Access',
    help: 'Request rate per client (API key, otherwise address) over all workers, such as 100/1s. Excess requests get 429. 0 is unlimited.',
    default: () => '0',
  }),
  maxClientRequests: option({
    schema: integer(0, 1_000_000),
    value: 'N',
    group: 'Access',
    help: 'Concurrent requests per client over all workers. Excess requests get 429. 0 is unlimited.',
    default: () => 0,
  }),
  trustedProxies: option({
    schema: integer(0, 32),
    value: 'N',
    group: 'Access',
    help: 'Proxies in front that append to X-Forwarded-For: the client is the Nth address from the end. 0 uses the peer address of the connection.',
    // Without a proxy that sets the header, clients can write any address into it.
    default: () => 0,
  }),
  corsOrigin: option({
    schema: origins,
    value: 'ORIGINS',
    group: 'Access',
    help: 'Origins allowed by CORS, such as https://app.example. Separate with commas or repeat the flag; * means all.',
    // By default browsers keep other sites from reading responses. An exposed server should not weaken that.
    default: () => '',
    defaultHelp: 'none',
    isList: true,
  }),
  tlsCert: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'TLS',
    help: 'Certificate chain (PEM). Inference is then served over TLS 1.2 or later. Reloaded when it changes.',
    default: () => '',
    defaultHelp: 'none: plain HTTP',
  }),
  tlsKey: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'TLS',
    help: 'Private key of the certificate (PEM).',
    default: () => '',
    defaultHelp: 'none',
  }),
  tlsCa: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'TLS',
    help: 'CA certificates (PEM). Clients must then present a certificate signed by one of them.',
    default: () => '',
    defaultHelp: 'none: clients need no certificate',
  }),
  adminTls: option({
    schema: z.enum(['off', 'on', 'mutual'], 'expected off, on or mutual'),
    value: 'MODE',
    group: 'TLS',
    help: 'TLS on the admin port. off: plain HTTP; on: the same certificate; mutual: client certificates are also required.',
    // The probes of an orchestrator have no client certificate, and the admin port is not public.
    default: () => 'off',
  }),
} as const

/** The OTLP endpoint from the standard OpenTelemetry variables; empty if traces are off. */
export function standardOtlpEndpoint(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.OTEL_SDK_DISABLED === 'true' || environment.OTEL_TRACES_EXPORTER === 'none') return ''
  return environment.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || environment.OTEL_EXPORTER_OTLP_ENDPOINT || ''
}

export const REQUEST_LOG_OPTIONS = {
  accessLog: option({
    schema: switchedOn,
    value: '',
    group: 'Logs and metrics',
    help: 'Logs one line per request with the duration of each phase.',
    // Costs about 4 us and one write per request; a small request takes 120 us.
    default: () => 'off',
    isSwitch: true,
  }),
  serverTiming: option({
    schema: switchedOn,
    value: '',
    group: 'Logs and metrics',
    help: 'Reports the duration of each phase to the client in the Server-Timing header.',
    // The header reveals the load of the server to strangers.
    default: () => 'off',
    isSwitch: true,
  }),
  otlpEndpoint: option({
    schema: serviceUrl,
    value: 'URL',
    group: 'Logs and metrics',
    help: 'OpenTelemetry collector (OTLP over HTTP) that receives the traces, such as http://localhost:4318.',
    default: () => standardOtlpEndpoint(),
    defaultHelp: '$OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or $OTEL_EXPORTER_OTLP_ENDPOINT; none: no traces',
  }),
} as const
