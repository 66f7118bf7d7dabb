/** Server reflection: the services and their schema. Both versions of the protocol have the same messages. */
import { create, type DescFile, toBinary } from '@bufbuild/protobuf'
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt'
import { status } from '@grpc/grpc-js'
import { file_health } from './schema/health_pb.js'
import { file_inference } from './schema/inference_pb.js'
import {
  file_reflection,
  type ServerReflectionRequest,
  ServerReflectionResponseSchema,
} from './schema/reflection_pb.js'
import { file_reflection_v1alpha } from './schema/reflection_v1alpha_pb.js'

const FILES: readonly DescFile[] = [file_inference, file_health, file_reflection, file_reflection_v1alpha]

/** Names of all declarations of a file, nested messages and methods included. */
function symbolsOf(file: DescFile): string[] {
  const messages = (list: DescFile['messages']): string[] =>
    list.flatMap((message) => [
      message.typeName,
      ...message.fields.map(({ name }) => `${message.typeName}.${name}`),
      ...message.nestedEnums.map(({ typeName }) => typeName),
      ...messages(message.nestedMessages),
    ])
  return [
    ...messages(file.messages),
    ...file.enums.map(({ typeName }) => typeName),
    ...file.services.flatMap(({ typeName, methods }) => [
      typeName,
      ...methods.map(({ name }) => `${typeName}.${name}`),
    ]),
  ]
}

let bySymbol: ReadonlyMap<string, DescFile> | undefined

function fileOf(request: ServerReflectionRequest['messageRequest']): DescFile | undefined {
  if (request.case === 'fileByFilename') return FILES.find(({ proto }) => proto.name === request.value)
  // Built on the first request, because most processes never receive one.
  bySymbol ??= new Map(FILES.flatMap((file) => symbolsOf(file).map((symbol) => [symbol, file] as const)))
  return request.case === 'fileContainingSymbol' ? bySymbol.get(request.value) : undefined
}

function notFound(errorMessage: string) {
  return { case: 'errorResponse', value: { errorCode: status.NOT_FOUND, errorMessage } } as const
}

function messageOf(request: ServerReflectionRequest['messageRequest']) {
  switch (request.case) {
    case 'listServices': {
      const service = FILES.flatMap(({ services }) => services.map(({ typeName }) => ({ name: typeName })))
      return { case: 'listServicesResponse', value: { service } } as const
    }
    case 'fileByFilename':
    case 'fileContainingSymbol': {
      const file = fileOf(request)
      if (file === undefined)
        return notFound(`nothing is known of ${JSON.stringify(request.value.slice(0, 200))}`)
      const fileDescriptorProto = [toBinary(FileDescriptorProtoSchema, file.proto)]
      return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } } as const
    }
    default:
      return notFound('there are no extensions')
  }
}

export function reflect(originalRequest: ServerReflectionRequest) {
  return create(ServerReflectionResponseSchema, {
    ...{ validHost: originalRequest.host, originalRequest },
    messageResponse: messageOf(originalRequest.messageRequest),
  })
}
