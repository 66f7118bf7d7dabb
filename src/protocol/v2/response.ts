/** The infer response: tensors in, headers and the pieces of the body out. */
import type { Tensor } from '../../tensor.js'
import { encodeBinaryData } from './binary.js'
import { encodeJsonData } from './json-encode.js'
import { type SharedPlace, sharedParameters } from './shared-place.js'

export interface InferResponse {
  readonly model: { readonly name: string; readonly version: string }
  /** Only when the request had one. */
  readonly id?: string | undefined
  readonly outputs: readonly Tensor[]
  /** Beside each output: whether it goes as binary data. */
  readonly binary: readonly boolean[]
  /** Beside each output: where in shared memory it was written; its data does not go into the body then. */
  readonly places?: readonly (SharedPlace | null)[]
}

export interface EncodedResponse {
  readonly headers: Record<string, string>
  /** The body, to be written in order; strings as UTF-8. Byte pieces are views of the outputs' storage. */
  readonly chunks: readonly (string | Uint8Array)[]
  /** Size of the body in bytes, for Content-Length. */
  readonly bytes: number
}

/** Pieces of text are joined up to about this length, so that small answers are one write. */
const CHUNK_LENGTH = 64 * 1024

/**
 * Encodes the answer to an infer request: the JSON, then the binary outputs in their order. The type is
 * application/octet-stream and Inference-Header-Content-Length is set only when binary bytes follow.
 *
 * @throws OnecopyError REQUEST_INVALID for an FP16 or BF16 output that is not binary.
 * @see Open Inference Protocol V2, "Inference Response"; Triton's binary tensor data extension.
 */
export function encodeInferResponse({
  model,
  id,
  outputs,
  binary,
  places = [],
}: InferResponse): EncodedResponse {
  const chunks: (string | Uint8Array)[] = []
  const raw: Uint8Array[] = []
  let jsonBytes = 0
  let pending = ''
  const flush = () => {
    jsonBytes += Buffer.byteLength(pending)
    chunks.push(pending)
    pending = ''
  }
  const write = (text: string) => {
    pending += text
    if (pending.length >= CHUNK_LENGTH) flush()
  }

  const idText = id === undefined ? '' : `"id":${JSON.stringify(id)},`
  const modelText = `"model_name":${JSON.stringify(model.name)},"model_version":${JSON.stringify(model.version)}`
  write(`{${modelText},${idText}"outputs":[`)
  outputs.forEach((output, i) => {
    const { name, shape, datatype } = output
    const about = JSON.stringify({ name, shape, datatype }).slice(0, -1)
    write(`${i === 0 ? '' : ','}${about},`)
    const place = places[i] ?? null
    if (place !== null) {
      write(`"parameters":${JSON.stringify(sharedParameters(place))}}`)
      return
    }
    if (binary[i]) {
      const bytes = encodeBinaryData(output)
      raw.push(bytes)
      write(`"parameters":{"binary_data_size":${bytes.length}}}`)
      return
    }
    write('"data":')
    for (const piece of encodeJsonData(output)) write(piece)
    write('}')
  })
  write(']}')
  if (pending !== '') flush()

  const rawBytes = raw.reduce((sum, { length }) => sum + length, 0)
  if (rawBytes === 0) return { headers: { 'Content-Type': 'application/json' }, chunks, bytes: jsonBytes }
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Inference-Header-Content-Length': String(jsonBytes),
  }
  return { headers, chunks: [...chunks, ...raw], bytes: jsonBytes + rawBytes }
}
