/** Calls that change the server: the model repository, shared memory, trace and log settings. */
import { create } from '@bufbuild/protobuf'
import type { ServerControl } from '../api/server-control.js'
import { OnecopyError } from '../errors.js'
import { publicText } from '../http/public-text.js'
import { requireExplicit } from '../http/routes/repository.js'
import { changeLogSettings, checkTraceSettings, logSettings, traceSettings } from '../http/routes/settings.js'
import { requireModel } from '../inference/model-facts.js'
import type { Regions } from '../regions/regions.js'
import type { GrpcContext } from './call.js'
import {
  type LogSettingsRequest,
  type LogSettingsResponse,
  LogSettingsResponseSchema,
  type RepositoryIndexRequest,
  type RepositoryIndexResponse,
  RepositoryIndexResponseSchema,
  type RepositoryModelLoadRequest,
  type SystemSharedMemoryRegisterRequest,
  type SystemSharedMemoryStatusResponse,
  SystemSharedMemoryStatusResponseSchema,
  type TraceSettingRequest,
  type TraceSettingResponse,
  TraceSettingResponseSchema,
} from './schema/inference_pb.js'

function controlOf({ control }: GrpcContext): ServerControl {
  if (control !== null) return control
  throw new OnecopyError(
    'ROUTE_NOT_FOUND',
    'the repository API is not on this port: --repository-api public has it here too',
  )
}

export async function repositoryIndex(
  context: GrpcContext,
  { ready }: RepositoryIndexRequest,
): Promise<RepositoryIndexResponse> {
  const entries = await controlOf(context).index()
  const models = entries.map((entry) => ({
    ...entry,
    reason: publicText(entry.reason, context.localFolders),
  }))
  return create(RepositoryIndexResponseSchema, {
    models: ready ? models.filter(({ state }) => state === 'READY') : models,
  })
}

export async function loadModel(
  context: GrpcContext,
  { modelName, parameters }: RepositoryModelLoadRequest,
): Promise<void> {
  const control = controlOf(context)
  let config: string | null = null
  for (const [name, { parameterChoice }] of Object.entries(parameters)) {
    if (name.startsWith('file:')) {
      const where = 'models are loaded from the repository, put the files there'
      throw new OnecopyError('REQUEST_INVALID', `expected no files (file:...): ${where}`)
    }
    if (name !== 'config') continue
    if (parameterChoice.case !== 'stringParam')
      throw new OnecopyError('REQUEST_INVALID', 'config: expected a string_param of JSON')
    config = parameterChoice.value
  }
  requireExplicit(control, 'load')
  await control.load(modelName, config)
}

export async function unloadModel(context: GrpcContext, { modelName }: { modelName: string }): Promise<void> {
  const control = controlOf(context)
  requireExplicit(control, 'unload')
  await control.unload(modelName)
}

function regionsOf({ regions }: GrpcContext): Regions {
  if (regions !== null) return regions
  throw new OnecopyError('ROUTE_NOT_FOUND', 'shared memory is off on this server (--system-shared-memory)')
}

export function sharedMemoryStatus(context: GrpcContext, name: string): SystemSharedMemoryStatusResponse {
  const regions = regionsOf(context)
  const found = name === '' ? regions.list() : [regions.find(name)].filter((one) => one !== null)
  if (name !== '' && found.length === 0)
    throw new OnecopyError('REGION_NOT_FOUND', `no shared memory region ${JSON.stringify(name)}`)
  return create(SystemSharedMemoryStatusResponseSchema, {
    regions: Object.fromEntries(
      found.map((one) => [
        one.name,
        { name: one.name, key: one.key, offset: BigInt(one.offsetBytes), byteSize: BigInt(one.bytes) },
      ]),
    ),
  })
}

export function registerSharedMemory(
  context: GrpcContext,
  { name, key, offset, byteSize }: SystemSharedMemoryRegisterRequest,
): void {
  const regions = regionsOf(context)
  if (byteSize === 0n) throw new OnecopyError('REQUEST_INVALID', 'byte_size: expected 1 or more, got 0')
  regions.register({ name, key, offsetBytes: Number(offset), bytes: Number(byteSize) })
}

/** An empty name is all of them. */
export function unregisterSharedMemory(context: GrpcContext, name: string): void {
  regionsOf(context).unregister(name === '' ? null : name)
}

export function refuseCuda(): never {
  throw new OnecopyError(
    'REQUEST_INVALID',
    'CUDA shared memory is not supported on this server: expected a region of system shared memory',
  )
}

export function traceSetting(
  context: GrpcContext,
  { settings, modelName }: TraceSettingRequest,
): TraceSettingResponse {
  if (modelName !== '') {
    const named = { name: modelName, version: undefined }
    requireModel(context.models, named, { isForInference: false })
  }
  const isTracing = context.observation.tracing !== null
  // An empty list of values requests the default.
  const requested = Object.entries(settings).map(([name, { value }]) => [
    name,
    value.length === 0 ? null : value,
  ])
  checkTraceSettings(Object.fromEntries(requested), isTracing)
  return create(TraceSettingResponseSchema, {
    settings: Object.fromEntries(
      Object.entries(traceSettings(isTracing)).map(([name, value]) => [name, { value: [value].flat() }]),
    ),
  })
}

function logSettingsMessage(level: string): LogSettingsResponse {
  const entries = Object.entries(logSettings(level)).map(([name, value]) => {
    if (typeof value === 'boolean') return [name, { parameterChoice: { case: 'boolParam', value } }]
    if (typeof value === 'number') return [name, { parameterChoice: { case: 'uint32Param', value } }]
    return [name, { parameterChoice: { case: 'stringParam', value } }]
  })
  return create(LogSettingsResponseSchema, { settings: Object.fromEntries(entries) })
}

/** Without a key of the scope `admin` the settings are read-only. */
export async function logSetting(
  context: GrpcContext,
  { settings }: LogSettingsRequest,
  requireAdmin: () => void,
): Promise<LogSettingsResponse> {
  const requested = Object.fromEntries(
    Object.entries(settings).map(([name, { parameterChoice }]) => [name, parameterChoice.value ?? null]),
  )
  if (Object.keys(requested).length === 0) return logSettingsMessage(context.log.level)
  requireAdmin()
  return logSettingsMessage(await changeLogSettings(requested, context))
}
