/**
 * A gRPC client of the inference service, made from the generated description; of the server it shares only
 * that.
 */
import { create, type DescMethod, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js'
import {
  GRPCInferenceService,
  type ModelInferRequest,
  type ModelInferRequestSchema,
  type ModelInferResponse,
  type ModelStreamInferResponse,
} from '../../src/grpc/schema/inference_pb.js'

export interface Failure {
  /** Name of the gRPC code. */
  readonly status: string
  readonly code: string
  readonly details: string
  readonly metadata: Metadata
}

export class GrpcFailure extends Error implements Failure {
  readonly status: string
  readonly code: string
  readonly details: string
  readonly metadata: Metadata
  /** Whether the response had begun: a retry policy does not repeat such a call. */
  readonly hasBegun: boolean

  constructor({ code, details, metadata }: ServiceError, hasBegun = false) {
    super(`${status[code]}: ${details}`)
    this.status = status[code] ?? ''
    this.code = String(metadata?.get('x-error-code')[0] ?? '')
    this.details = details
    this.metadata = metadata
    this.hasBegun = hasBegun
  }
}

export type Methods = typeof GRPCInferenceService.method

function pathOf({ parent, name }: DescMethod): string {
  return `/${parent.typeName}/${name}`
}

export class GrpcClient {
  readonly #client: Client

  constructor(
    address: string,
    {
      secure = credentials.createInsecure(),
      options = {},
    }: { secure?: ChannelCredentials; options?: ClientOptions } = {},
  ) {
    // A channel of its own: grpc-js shares subchannels between clients with the same options.
    const own = { 'grpc.use_local_subchannel_pool': 1, 'grpc.max_receive_message_length': -1, ...options }
    this.#client = new Client(address, secure, own)
  }

  call(
    method: DescMethod,
    message: object,
    { headers = {}, ...options }: CallOptions & { headers?: Record<string, string> } = {},
  ): Promise<never> {
    const metadata = new Metadata()
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value)
    return new Promise((resolve, reject) => {
      let hasBegun = false
      const call = this.#client.makeUnaryRequest(
        pathOf(method),
        (one: object) => Buffer.from(toBinary(method.input, create(method.input, one as never))),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        message,
        metadata,
        options,
        (error, answer) =>
          error === null ? resolve(answer as never) : reject(new GrpcFailure(error, hasBegun)),
      )
      call.on('metadata', () => {
        hasBegun = true
      })
    })
  }

  async infer(
    message: MessageInitShape<typeof ModelInferRequestSchema>,
    options: CallOptions & { headers?: Record<string, string> } = {},
  ): Promise<ModelInferResponse> {
    return await this.call(GRPCInferenceService.method.modelInfer, message, options)
  }

  stream(): ClientDuplexStream<ModelInferRequest, ModelStreamInferResponse> {
    return this.bidi(GRPCInferenceService.method.modelStreamInfer) as never
  }

  bidi(method: DescMethod): ClientDuplexStream<object, object> {
    return this.#client.makeBidiStreamRequest(
      pathOf(method),
      (one: object) => Buffer.from(toBinary(method.input, one as never)),
      (bytes: Buffer) => fromBinary(method.output, bytes),
    )
  }

  close(): void {
    this.#client.close()
  }
}

/** Bytes of FP32 elements. */
export function floats(...values: number[]): Uint8Array {
  return floatsOf(values)
}

export function floatsOf(values: readonly number[]): Uint8Array {
  return new Uint8Array(Float32Array.from(values).buffer)
}

/** A request for the model `add` of the tests: FP32 [n, 2], one and two are added. */
export function addRequest(
  values: readonly number[],
  more: object = {},
): MessageInitShape<typeof ModelInferRequestSchema> {
  const inputs = [{ name: 'x', datatype: 'FP32', shape: [BigInt(values.length / 2), 2n] }]
  return { modelName: 'add', inputs, rawInputContents: [floatsOf(values)], ...more }
}
