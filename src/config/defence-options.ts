/** Options of who may ask, how much, and how safely; and of what is told about each request. */
import { z } from 'zod'
import { integer, option, optionalPath } from './option.js'
import { origins, rateLimit, serviceUrl, switchedOn } from './quantities.js'

export const ACCESS_OPTIONS = {
  apiKeysFile: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'Access',
    help: 'Keys that are asked for, one NAME:SHA256:SCOPES a line (onecopy key makes them); followed while it serves.',
    default: () => '',
    defaultHelp: 'none: open',
  }),
  apiKeys: option({
    schema: z.string(),
    value: 'KEYS',
    group: 'Access',
    help: 'The same in place, separated by semicolons; beside those of the file.',
    default: () => '',
    defaultHelp: 'none: open',
  }),
  rateLimit: option({
    schema: rateLimit,
    value: 'N/TIME',
    group: 'Access',
    help: 'Requests of one client (API key, else address) in a time, such as 100/1s, over all workers; more are 429. 0 is unlimited.',
    default: () => '0',
  }),
  maxClientRequests: option({
    schema: integer(0, 1_000_000),
    value: 'N',
    group: 'Access',
    help: 'Requests of one client that may be inside at once, over all workers; more are 429. 0 is unlimited.',
    default: () => 0,
  }),
  trustedProxies: option({
    schema: integer(0, 32),
    value: 'N',
    group: 'Access',
    help: 'Proxies in front that append to X-Forwarded-For: the client is the Nth address from its end; 0 is the other end of the connection.',
    // The header is the client's own word where no proxy writes it.
    default: () => 0,
  }),
  corsOrigin: option({
    schema: origins,
    value: 'ORIGINS',
    group: 'Access',
    help: 'Web pages that may ask, such as https://app.example, separated by commas or given again; * is all.',
    // Browsers keep other sites from reading answers, and a server that is reached by accident should not change that.
    default: () => '',
    defaultHelp: 'none',
    isList: true,
  }),
  tlsCert: option({
    schema: optionalPath,
    value: 'FILE',
    group: 'TLS',
    help: 'Certificate chain (PEM): inference is served by TLS 1.2 and later. Followed while it serves.',
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
    help: 'Authorities (PEM) that certificates of clients are asked to be signed by.',
    default: () => '',
    defaultHelp: 'none: clients need no certificate',
  }),
  adminTls: option({
    schema: z.enum(['off', 'on', 'mutual'], 'expected off, on or mutual'),
    value: 'MODE',
    group: 'TLS',
    help: 'The admin port: off is plain HTTP, on uses the same certificate, mutual asks clients for one too.',
    // Probes of an orchestrator have no client certificate, and the admin port is not for the public.
    default: () => 'off',
  }),
} as const

/** Where OpenTelemetry's own variables say that traces go; empty for nowhere. */
export function standardOtlpEndpoint(environment: NodeJS.ProcessEnv = process.env): string {
  if (environment.OTEL_SDK_DISABLED === 'true' || environment.OTEL_TRACES_EXPORTER === 'none') return ''
  return environment.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT || environment.OTEL_EXPORTER_OTLP_ENDPOINT || ''
}

export const REQUEST_LOG_OPTIONS = {
  accessLog: option({
    schema: switchedOn,
    value: '',
    group: 'Logs and metrics',
    help: 'One line a request, with what each part of it took.',
    // Some 4 us and a write for each request, where a small one takes 120 us.
    default: () => 'off',
    isSwitch: true,
  }),
  serverTiming: option({
    schema: switchedOn,
    value: '',
    group: 'Logs and metrics',
    help: 'The same for the client, in the header Server-Timing.',
    // Tells strangers how busy the server is.
    default: () => 'off',
    isSwitch: true,
  }),
  otlpEndpoint: option({
    schema: serviceUrl,
    value: 'URL',
    group: 'Logs and metrics',
    help: 'OpenTelemetry collector (OTLP over HTTP) that traces go to, such as http://localhost:4318.',
    default: () => standardOtlpEndpoint(),
    defaultHelp: '$OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or $OTEL_EXPORTER_OTLP_ENDPOINT; none: no traces',
  }),
} as const
