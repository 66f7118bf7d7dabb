/** grpc.health.v1: of the whole server (an empty name), of the inference service, and of single models by name. */
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
/** How late a watcher may hear of a change. */
export const WATCH_INTERVAL_MS = 500

/** Null: there is no such service or model. */
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

/** Tells the status, and every change of it, until the returned function is called. */
export function watch(
  context: GrpcContext,
  service: string,
  tell: (response: HealthCheckResponse) => void,
): () => void {
  let last: Status | undefined
  const look = () => {
    const status = servingStatus(context, service) ?? Status.SERVICE_UNKNOWN
    if (status !== last) tell(create(HealthCheckResponseSchema, { status }))
    last = status
  }
  look()
  const timer = setInterval(look, WATCH_INTERVAL_MS).unref()
  return () => clearInterval(timer)
}
