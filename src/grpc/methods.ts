/** Every method of every service, with the scope that a key needs. */
import { create, type DescMethod, fromBinary, toBinary } from '@bufbuild/protobuf'
import type {
  MethodDefinition,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedHandleCall,
} from '@grpc/grpc-js'
import type { Scope } from '../access/api-keys.js'
import { type AnyCall, type Call, type GrpcContext, type ServeOptions, serveCall } from './call.js'
import * as control from './control.js'
import { onDraining, streamClosed } from './draining.js'
import { check, watch } from './health.js'
import { modelInfer } from './infer.js'
import { inferResponseBytes, streamResponseBytes } from './infer-bytes.js'
import { noteOwner } from './infer-codec.js'
import { isModelReady, modelConfig, modelMetadata, serverMetadata, statistics } from './information.js'
import { MalformedMessage, malformed, requireMessage } from './malformed.js'
import { noteSize } from './receiving.js'
import { reflect } from './reflection.js'
import { Health, type HealthCheckRequest } from './schema/health_pb.js'
import * as pb from './schema/inference_pb.js'
import { ServerReflection, type ServerReflectionRequest } from './schema/reflection_pb.js'
import { ServerReflection as ServerReflectionAlpha } from './schema/reflection_v1alpha_pb.js'
import { statusObjectOf } from './status.js'
import { serveInferStream } from './streams.js'

export interface Method {
  readonly definition: MethodDefinition<unknown, unknown>
  readonly handler: UntypedHandleCall
}

const TENSORS = new Map<string, (message: never) => Buffer>([
  [pb.ModelInferResponseSchema.typeName, inferResponseBytes],
  [pb.ModelStreamInferResponseSchema.typeName, streamResponseBytes],
])

/** A method definition for grpc-js from the generated description. */
function definitionOf(method: DescMethod): MethodDefinition<unknown, unknown> {
  const { input, output, methodKind, parent } = method
  const serialize = (schema: typeof input) => (message: unknown) => {
    const { buffer, byteOffset, byteLength } = toBinary(schema, message as never)
    return Buffer.from(buffer, byteOffset, byteLength)
  }
  const deserialize = (schema: typeof input) => (bytes: Buffer) => {
    noteOwner(bytes)
    try {
      const message = fromBinary(schema, bytes)
      noteSize(message, bytes.length)
      return message
    } catch (thrown) {
      return new MalformedMessage(thrown)
    }
  }
  return {
    path: `/${parent.typeName}/${method.name}`,
    requestStream: methodKind === 'client_streaming' || methodKind === 'bidi_streaming',
    responseStream: methodKind === 'server_streaming' || methodKind === 'bidi_streaming',
    ...{ requestSerialize: serialize(input), requestDeserialize: deserialize(input) },
    responseSerialize: (TENSORS.get(output.typeName) as ReturnType<typeof serialize>) ?? serialize(output),
    responseDeserialize: deserialize(output),
  }
}

type Work = (message: never, call: Call, metadata: AnyCall['metadata']) => unknown

function unary(method: DescMethod, options: ServeOptions, scope: Scope | null, work: Work): Method {
  const handler = (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>) => {
    const done = serveCall(call as AnyCall, options, {
      scope,
      work: async (seen) => await work(requireMessage(call.request) as never, seen, call.metadata),
    })
    void done.then((ended) =>
      'failure' in ended ? callback({ ...ended.status, name: '', message: '' }) : callback(null, ended.value),
    )
  }
  return { definition: definitionOf(method), handler: handler as UntypedHandleCall }
}

/** @throws OnecopyError UNAUTHORIZED or FORBIDDEN without a key of the scope `admin`. */
function requireAdmin({ defences }: GrpcContext, metadata: AnyCall['metadata']): void {
  const text = (name: string) => metadata.get(name)[0]?.toString()
  const headers = { authorization: text('authorization'), 'x-api-key': text('x-api-key') }
  defences.keyring.authorize(headers, 'admin')
}

function inferenceMethods(options: ServeOptions): Method[] {
  const { context } = options
  const { method } = pb.GRPCInferenceService
  const on = (one: DescMethod, scope: Scope | null, work: Work) => unary(one, options, scope, work)
  return [
    on(method.serverLive, null, () => create(pb.ServerLiveResponseSchema, { live: true })),
    on(method.serverReady, null, () => create(pb.ServerReadyResponseSchema, { ready: context.isReady() })),
    on(method.modelReady, 'infer', (message: pb.ModelReadyRequest) =>
      create(pb.ModelReadyResponseSchema, { ready: isModelReady(context, message) }),
    ),
    on(method.serverMetadata, 'infer', () => serverMetadata(context)),
    on(method.modelMetadata, 'infer', (message: pb.ModelMetadataRequest) => modelMetadata(context, message)),
    on(method.modelConfig, 'infer', (message: pb.ModelConfigRequest) =>
      create(pb.ModelConfigResponseSchema, { config: modelConfig(context, message) }),
    ),
    on(method.modelStatistics, 'infer', (message: pb.ModelStatisticsRequest) => statistics(context, message)),
    on(method.modelInfer, 'infer', (message: pb.ModelInferRequest, call) =>
      modelInfer(message, { call, context }),
    ),
    serveInferStream(definitionOf(method.modelStreamInfer), options),
    on(method.repositoryIndex, 'admin', (message: pb.RepositoryIndexRequest) =>
      control.repositoryIndex(context, message),
    ),
    on(method.repositoryModelLoad, 'admin', async (message: pb.RepositoryModelLoadRequest) => {
      await control.loadModel(context, message)
      return create(pb.RepositoryModelLoadResponseSchema)
    }),
    on(method.repositoryModelUnload, 'admin', async (message: pb.RepositoryModelUnloadRequest) => {
      await control.unloadModel(context, message)
      return create(pb.RepositoryModelUnloadResponseSchema)
    }),
    ...sharedMemoryMethods(options),
    on(method.traceSetting, 'infer', (message: pb.TraceSettingRequest) =>
      control.traceSetting(context, message),
    ),
    on(method.logSettings, 'infer', (message: pb.LogSettingsRequest, _call, metadata) =>
      control.logSetting(context, message, () => requireAdmin(context, metadata)),
    ),
  ]
}

function sharedMemoryMethods(options: ServeOptions): Method[] {
  const { context } = options
  const { method } = pb.GRPCInferenceService
  const on = (one: DescMethod, work: Work) => unary(one, options, 'infer', work)
  return [
    on(method.systemSharedMemoryStatus, ({ name }: pb.SystemSharedMemoryStatusRequest) =>
      control.sharedMemoryStatus(context, name),
    ),
    on(method.systemSharedMemoryRegister, (message: pb.SystemSharedMemoryRegisterRequest) => {
      control.registerSharedMemory(context, message)
      return create(pb.SystemSharedMemoryRegisterResponseSchema)
    }),
    on(method.systemSharedMemoryUnregister, ({ name }: pb.SystemSharedMemoryUnregisterRequest) => {
      control.unregisterSharedMemory(context, name)
      return create(pb.SystemSharedMemoryUnregisterResponseSchema)
    }),
    on(method.cudaSharedMemoryStatus, () => create(pb.CudaSharedMemoryStatusResponseSchema)),
    on(method.cudaSharedMemoryRegister, () => control.refuseCuda()),
    on(method.cudaSharedMemoryUnregister, () => create(pb.CudaSharedMemoryUnregisterResponseSchema)),
  ]
}

/** Probes need no key. */
function healthMethods(options: ServeOptions): Method[] {
  const { context } = options
  const watchHandler = (call: ServerWritableStream<HealthCheckRequest, unknown>) => {
    if (call.request instanceof MalformedMessage) {
      call.emit('error', statusObjectOf(malformed(call.request)))
      return
    }
    const endWatch = watch(context, call.request.service, (response) => call.write(response))
    const stopWaiting = onDraining(options, {
      begin: () => {
        end()
        call.emit('error', statusObjectOf(streamClosed()))
      },
    })
    const end = () => {
      endWatch()
      stopWaiting()
    }
    call.on('cancelled', end)
    call.on('close', end)
  }
  return [
    unary(Health.method.check, options, null, ({ service }: HealthCheckRequest) => check(context, service)),
    { definition: definitionOf(Health.method.watch), handler: watchHandler as UntypedHandleCall },
  ]
}

/** Reflection needs no key: the schema is public. */
function reflectionMethods(options: ServeOptions): Method[] {
  const handler = (call: ServerDuplexStream<ServerReflectionRequest, unknown>) => {
    const stopWaiting = onDraining(options, {
      begin: () => call.emit('error', statusObjectOf(streamClosed())),
    })
    call.on('cancelled', stopWaiting)
    call.on('close', stopWaiting)
    call.on('data', (request: ServerReflectionRequest) => {
      if (request instanceof MalformedMessage) call.emit('error', statusObjectOf(malformed(request)))
      else call.write(reflect(request))
    })
    call.on('end', () => call.end())
  }
  return [ServerReflection, ServerReflectionAlpha].map(({ method }) => ({
    definition: definitionOf(method.serverReflectionInfo),
    handler: handler as UntypedHandleCall,
  }))
}

export function allMethods(options: ServeOptions): Method[] {
  return [...inferenceMethods(options), ...healthMethods(options), ...reflectionMethods(options)]
}
