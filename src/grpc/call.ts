/**
 * Runs every call, whatever its method: checks the API key and the limits of the client as REST does, counts
 * the call for its connection, turns errors into a status, and records the duration in the access log and the
 * trace.
 */
import { randomUUID } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import { Metadata, type MetadataValue, type StatusObject } from '@grpc/grpc-js'
import type { Scope } from '../access/api-keys.js'
import { messageOf, OnecopyError } from '../errors.js'
import { networkOf, withinLimits } from '../http/client-limits.js'
import type { HttpContext } from '../http/context.js'
import { RequestTimings } from '../http/observe/timings.js'
import { traceIdOf } from '../http/observe/trace-parent.js'
import { publicText } from '../http/public-text.js'
import type { ServerIdentity } from '../http/routes/health.js'
import type { ServedModel, VersionOutOfService } from '../inference/service.js'
import type { Draining } from './draining.js'
import { asOnecopyError, statusNameOf, statusObjectOf } from './status.js'

export interface GrpcContext extends HttpContext {
  readonly identity: ServerIdentity
}

/** What all kinds of grpc-js calls have in common. */
export interface AnyCall {
  readonly metadata: Metadata
  readonly cancelled: boolean
  getPath(): string
  getPeer(): string
  getDeadline(): Date | number
  sendMetadata(metadata: Metadata): void
}

/** A call as its method sees it. */
export interface Call {
  readonly requestId: string
  /** Remaining time until the deadline; null without a deadline. */
  timeoutMs(): number | null
  isCancelled(): boolean
  /** Only with an access log or a trace. */
  readonly timings: RequestTimings | undefined
  /** Sends the initial metadata once. Streams call it before their first response. */
  sendMetadata(): void
  /** The model version of the request, once it is known. */
  model: Pick<ServedModel | VersionOutOfService, 'name' | 'version' | 'counts'> | undefined
  heldBytes: number
}

const REQUEST_ID_PATTERN = /^[A-Za-z0-9._:/+=-]{1,128}$/
/** A longer timer fires immediately. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

function textOf(value: MetadataValue | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Metadata that authentication and tracing read. */
const READ_HEADERS = ['authorization', 'x-api-key', 'traceparent', 'tracestate', 'baggage'] as const

function headersOf(metadata: Metadata): IncomingHttpHeaders {
  const headers: IncomingHttpHeaders = {}
  for (const name of READ_HEADERS) {
    const value = textOf(metadata.get(name)[0])
    if (value !== undefined) headers[name] = value
  }
  return headers
}

function remainingMs(deadline: Date | number): number | null {
  const ms = (typeof deadline === 'number' ? deadline : deadline.getTime()) - Date.now()
  return ms > LONGEST_TIMER_MS ? null : Math.max(1, ms)
}

export interface ServeOptions extends Draining {
  readonly context: GrpcContext
  /** The connection of a peer; undefined once it is closed. */
  readonly socketOf: (peer: string) => Socket | undefined
  /** Drains a connection, so that its client connects again. */
  readonly drainConnection: (socket: Socket) => void
}

export type Ended<T> =
  | { readonly value: T }
  | { readonly failure: OnecopyError; readonly status: StatusObject }

/** Runs `work` for a call. `scope` is the scope that a key needs; null is open to all. */
export async function serveCall<T>(
  call: AnyCall,
  { context, socketOf, drainConnection }: ServeOptions,
  { scope, work }: { readonly scope: Scope | null; readonly work: (call: Call) => Promise<T> },
): Promise<Ended<T>> {
  const { defences, connections, observation, isDraining } = context
  const { isAccessLogOn, tracing } = observation
  const startedMs = performance.now()
  const socket = socketOf(call.getPeer())
  if (socket !== undefined) connections.begin(socket, true, true)
  const given = textOf(call.metadata.get('x-request-id')[0]) ?? ''
  const requestId = REQUEST_ID_PATTERN.test(given) ? given : randomUUID()
  const headers = headersOf(call.metadata)
  const isProbe = scope === null
  const span = isProbe || tracing === null ? null : tracing.begin({ headers, method: 'POST' }, startedMs)
  const initial = new Metadata()
  initial.set('x-request-id', requestId)
  if (span !== null) initial.set('traceresponse', span.header)
  let isMetadataSent = false
  const sendMetadata = () => {
    if (!isMetadataSent) call.sendMetadata(initial)
    isMetadataSent = true
  }
  const seen: Call = {
    ...{ requestId, model: undefined, heldBytes: 0, sendMetadata },
    timings: isAccessLogOn || span !== null ? new RequestTimings() : undefined,
    timeoutMs: () => remainingMs(call.getDeadline()),
    isCancelled: () => call.cancelled,
  }
  const address = addressOf(call.getPeer())
  let client = `ip ${networkOf(address)}`
  const ended = await endOf(context, seen, async () => {
    if (isProbe) return await work(seen)
    const keyName = defences.keyring.authorize(headers, scope)
    if (keyName !== null) client = `key ${keyName}`
    const { clientCounts: counts, limits } = defences
    return counts === null
      ? await work(seen)
      : await withinLimits(client, { limits, counts }, () => work(seen))
  })
  // A retry policy repeats a call only if the failure is all that the client received, without initial
  // metadata.
  if (!('failure' in ended)) sendMetadata()
  else if (!isMetadataSent) ended.status.metadata?.merge(initial)
  if (socket !== undefined && (connections.end(socket) || isDraining())) drainConnection(socket)
  const code = 'failure' in ended ? ended.failure.code : undefined
  const facts = { method: call.getPath(), status: code === undefined ? 'OK' : statusNameOf(code), code }
  const durationMs = Math.round((performance.now() - startedMs) * 1000) / 1000
  const { model, timings } = seen
  if (isAccessLogOn && !isProbe) {
    const traceId = span?.traceId ?? traceIdOf(headers.traceparent as string | undefined)
    const phases = (timings?.phases ?? []).map((one) => [
      `${one.phase}Ms`,
      Math.round((one.endMs - one.startMs) * 1000) / 1000,
    ])
    context.log.info(
      {
        ...{ requestId, traceId, client, address, protocol: 'grpc', ...facts },
        ...{ model: model?.name, version: model?.version, rows: timings?.rows ?? undefined, durationMs },
        ...Object.fromEntries(phases),
      },
      'access',
    )
  }
  span?.end({
    name: call.getPath().slice(1),
    status: 'failure' in ended ? ended.failure.status : 200,
    timings: timings ?? new RequestTimings(),
    attributes: {
      ...{ 'rpc.system': 'grpc', 'rpc.method': facts.method, 'rpc.grpc.status_code': facts.status },
      ...{ 'client.address': address, 'onecopy.client': client, 'onecopy.request.id': requestId },
      ...(code === undefined ? {} : { 'error.type': code }),
      ...(model === undefined
        ? {}
        : { 'onecopy.model.name': model.name, 'onecopy.model.version': model.version }),
    },
  })
  return ended
}

async function endOf<T>(
  context: GrpcContext,
  { requestId }: Call,
  work: () => Promise<T>,
): Promise<Ended<T>> {
  try {
    return { value: await work() }
  } catch (thrown) {
    const failure = asOnecopyError(thrown)
    if (failure.fault === 'bug') {
      context.log.error({ requestId, err: thrown }, messageOf(thrown))
      context.onBug(thrown)
    }
    return { failure, status: statusObjectOf(publicFailure(failure, context)) }
  }
}

/** The error as clients see it: faults of the client unchanged, other texts without paths of this server. */
export function publicFailure(
  failure: OnecopyError,
  { localFolders }: Pick<GrpcContext, 'localFolders'>,
): OnecopyError {
  if (failure.fault === 'client') return failure
  const { code, headers, message } = failure
  return new OnecopyError(code, publicText(message, localFolders), { headers })
}

/** `[::1]:5000` and `::1:5000` as well as `127.0.0.1:5000`. */
function addressOf(peer: string): string {
  return peer.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')
}
