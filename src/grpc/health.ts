/** grpc.health.v1 for the server (an empty name), the inference service, and models by their name. */
import { create } from '@bufbuild/protobuf'
import { OnecopyError } from '../errors.js'
import type { GrpcContext } from './call.js'
import { isModelReady } from './information.js'
import {
  type HealthCheckResponse,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as Status,
} from './schema/health_pb.js'

const SERVICES: ReadonlySet<string> = new Set(['', 'inference.GRPCInferenceService'])
/** The longest delay of a change to a watcher. */
export const WATCH_INTERVAL_MS = 500

/** Null for an unknown service or model. */
export function servingStatus(context: GrpcContext, service: string): Status | null {
  if (SERVICES.has(service)) return context.isReady() ? Status.SERVING : Status.NOT_SERVING
  if (!context.models.names().includes(service)) return null
  return isModelReady(context, { name: service, version: '' }) ? Status.SERVING : Status.NOT_SERVING
}

/** @throws OnecopyError MODEL_NOT_FOUND. */
export function check(context: GrpcContext, service: string): HealthCheckResponse {
  const status = servingStatus(context, service)
  if (status === null)
    throw new OnecopyError('MODEL_NOT_FOUND', `no service or model ${JSON.stringify(service.slice(0, 80))}`)
  return create(HealthCheckResponseSchema, { status })
}

/** Sends the status and every change until the returned function is called. */
export function watch(
  context: GrpcContext,
  service: string,
  send: (response: HealthCheckResponse) => void,
): () => void {
  let last: Status | undefined
  const look = () => {
    const status = servingStatus(context, service) ?? Status.SERVICE_UNKNOWN
    if (status !== last) send(create(HealthCheckResponseSchema, { status }))
    last = status
  }
  look()
  const timer = setInterval(look, WATCH_INTERVAL_MS).unref()
  return () => clearInterval(timer)
}
