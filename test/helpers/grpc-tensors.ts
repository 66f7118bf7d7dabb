/** Tensors of the tests as messages of gRPC, raw and typed, and back. */
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { InferTensorContentsSchema } from '../../src/grpc/schema/inference_pb.js'
import type { GrpcClient } from './grpc-client.js'
import { binaryBytes, stringsOf, type WireTensor } from './v2-client.js'

/** FP16 and BF16 have no typed field. */
const ELEMENTS: Readonly<
  Record<string, [keyof MessageInitShape<typeof InferTensorContentsSchema>, (bytes: ArrayBuffer) => unknown]>
> = {
  BOOL: ['boolContents', (bytes) => [...new Uint8Array(bytes)].map((one) => one !== 0)],
  UINT8: ['uintContents', (bytes) => [...new Uint8Array(bytes)]],
  UINT16: ['uintContents', (bytes) => [...new Uint16Array(bytes)]],
  UINT32: ['uintContents', (bytes) => [...new Uint32Array(bytes)]],
  UINT64: ['uint64Contents', (bytes) => [...new BigUint64Array(bytes)]],
  INT8: ['intContents', (bytes) => [...new Int8Array(bytes)]],
  INT16: ['intContents', (bytes) => [...new Int16Array(bytes)]],
  INT32: ['intContents', (bytes) => [...new Int32Array(bytes)]],
  INT64: ['int64Contents', (bytes) => [...new BigInt64Array(bytes)]],
  FP32: ['fp32Contents', (bytes) => [...new Float32Array(bytes)]],
  FP64: ['fp64Contents', (bytes) => [...new Float64Array(bytes)]],
}

export function hasTypedForm(tensors: readonly WireTensor[]): boolean {
  return tensors.every(({ datatype }) => datatype === 'BYTES' || datatype in ELEMENTS)
}

function contentsOf({
  datatype,
  bytes,
  strings,
}: WireTensor): MessageInitShape<typeof InferTensorContentsSchema> {
  if (strings !== undefined) return { bytesContents: strings.map((text) => Buffer.from(text)) }
  const [field, elements] = ELEMENTS[datatype] ?? []
  if (field === undefined || elements === undefined) throw new Error(`${datatype} has no typed form`)
  return { [field]: elements(Uint8Array.from(bytes ?? []).buffer) }
}

/** The outputs of one ModelInfer. */
export async function grpcOutputs(
  client: GrpcClient,
  { model, inputs, form }: { model: string; inputs: readonly WireTensor[]; form: 'raw' | 'typed' },
): Promise<WireTensor[]> {
  const { outputs, rawOutputContents } = await client.infer({
    modelName: model,
    inputs: inputs.map((tensor) => ({
      ...{ name: tensor.name, datatype: tensor.datatype, shape: tensor.shape.map(BigInt) },
      ...(form === 'typed' ? { contents: contentsOf(tensor) } : {}),
    })),
    ...(form === 'raw' ? { rawInputContents: inputs.map(binaryBytes) } : {}),
  })
  return outputs.map(({ name, datatype, shape }, i) => {
    const bytes = Uint8Array.from(rawOutputContents[i] ?? [])
    const data = datatype === 'BYTES' ? { strings: stringsOf(bytes) } : { bytes }
    return { name, datatype, shape: shape.map(Number), ...data }
  })
}
