/** The infer response: tensors in, headers and the pieces of the body out. */
import type { Tensor } from '../../tensor.js'
import { binarySize, encodeBinaryData } from './binary.js'
import { encodeJsonData } from './json-encode.js'
import { leastBytes, leastElementBytes, responseTooLarge } from './response-size.js'
import type { SharedPlace } from './shared-place.js'
import { inSlices, withoutPause } from './slices.js'

export interface InferResponse {
  readonly model: { readonly name: string; readonly version: string }
  /** Only when the request had one. */
  readonly id?: string | undefined
  readonly outputs: readonly Tensor[]
  /** Beside each output: whether it goes as binary data. */
  readonly binary: readonly boolean[]
  /**
   * Beside each output: where in shared memory it was written; its data does not go into the body
   * then.
   */
  readonly places?: readonly (SharedPlace | null)[] | undefined
  /** Of the body; without, it may have any size. */
  readonly maxBytes?: number
}

export interface EncodedResponse {
  readonly headers: Record<string, string>
  /**
   * The body, to be written in order; strings as UTF-8. Byte pieces are views of the outputs'
   * storage.
   */
  readonly chunks: readonly (string | Uint8Array)[]
  /** Size of the body in bytes, for Content-Length. */
  readonly bytes: number
}

/** Pieces of text are joined up to about this length, so that small answers are one write. */
const CHUNK_LENGTH = 64 * 1024

/** The encoding itself, in steps of at most `PIECE_ELEMENTS` numbers. */
function* encodeInSteps({
  model,
  id,
  outputs,
  binary,
  places = [],
  maxBytes = Number.POSITIVE_INFINITY,
}: InferResponse): Generator<void, EncodedResponse, undefined> {
  /** The minimum size of what is still to be encoded. */
  let leastLeft = 0
  const least = outputs.map((output, i) => {
    if (places[i] != null) return 0
    return leastBytes([output], [leastElementBytes(output.datatype, binary[i] === true)])
  })
  for (const bytes of least) leastLeft += bytes
  const check = (bytes: number, isExact: boolean) => {
    if (bytes + leastLeft > maxBytes) {
      throw responseTooLarge({ maxBytes, bytes: bytes + leastLeft, isExact, outputs })
    }
  }
  check(0, false)
  const chunks: (string | Uint8Array)[] = []
  const raw: Uint8Array[] = []
  let rawBytes = 0
  let jsonBytes = 0
  let pending = ''
  const flush = () => {
    // Outside the heap of JavaScript, which would keep what a large answer took.
    const bytes = Buffer.from(pending)
    jsonBytes += bytes.length
    check(jsonBytes + rawBytes, false)
    chunks.push(bytes)
    pending = ''
  }
  const write = (text: string) => {
    pending += text
    if (pending.length >= CHUNK_LENGTH) flush()
  }

  write(openingOf(model, id))
  for (const [i, output] of outputs.entries()) {
    write(headOf(output, i))
    if (places[i] != null) {
      // No parameters: the C++ client takes an output that has some without binary_data_size for an
      // error.
      write('}')
      continue
    }
    leastLeft -= least[i] as number
    if (binary[i]) {
      check(jsonBytes + rawBytes + binarySize(output), false)
      const bytes = encodeBinaryData(output)
      raw.push(bytes)
      rawBytes += bytes.length
      write(binaryEnd(bytes.length))
      continue
    }
    write(',"data":')
    for (const piece of encodeJsonData(output)) {
      write(piece)
      yield
    }
    write('}')
  }
  write(CLOSING)
  if (chunks.length === 0) {
    // Small answers stay text: they go out in one piece.
    jsonBytes = Buffer.byteLength(pending)
    chunks.push(pending)
  } else if (pending !== '') flush()
  check(jsonBytes + rawBytes, true)

  if (rawBytes === 0) return { headers: { 'Content-Type': 'application/json' }, chunks, bytes: jsonBytes }
  return binaryResponse({ chunks, jsonBytes, raw, rawBytes })
}

/** All outputs are binary, and no text needs to be written in steps: the same result in one go. */
function encodeBinaryOnly(response: InferResponse): EncodedResponse | null {
  const { model, id, outputs, binary, places = [], maxBytes = Number.POSITIVE_INFINITY } = response
  if (!binary.every(Boolean) || places.some((place) => place !== null)) return null
  let text = openingOf(model, id)
  let rawBytes = 0
  const raw: Uint8Array[] = []
  for (let i = 0; i < outputs.length; i++) {
    const output = outputs[i] as Tensor
    if (rawBytes + binarySize(output) > maxBytes) return null
    const bytes = encodeBinaryData(output)
    raw.push(bytes)
    rawBytes += bytes.length
    text += headOf(output, i) + binaryEnd(bytes.length)
  }
  text += CLOSING
  const jsonBytes = Buffer.byteLength(text)
  const isRegular = rawBytes > 0 && text.length < CHUNK_LENGTH && jsonBytes + rawBytes <= maxBytes
  return isRegular ? binaryResponse({ chunks: [text], jsonBytes, raw, rawBytes }) : null
}

function openingOf({ name, version }: InferResponse['model'], id: string | undefined): string {
  const idText = id === undefined ? '' : `"id":${JSON.stringify(id)},`
  return `{"model_name":${JSON.stringify(name)},"model_version":${JSON.stringify(version)},${idText}"outputs":[`
}

/** An output up to its data, without the closing brace. */
function headOf({ name, shape, datatype }: Tensor, index: number): string {
  const comma = index === 0 ? '' : ','
  return `${comma}{"name":${JSON.stringify(name)},"shape":[${shape.join(',')}],"datatype":"${datatype}"`
}

function binaryEnd(bytes: number): string {
  return `,"parameters":{"binary_data_size":${bytes}}}`
}

const CLOSING = ']}'

function binaryResponse(parts: {
  readonly chunks: readonly (string | Uint8Array)[]
  readonly jsonBytes: number
  readonly raw: readonly Uint8Array[]
  readonly rawBytes: number
}): EncodedResponse {
  const { chunks, jsonBytes, raw, rawBytes } = parts
  const headers = {
    'Content-Type': 'application/octet-stream',
    'Inference-Header-Content-Length': String(jsonBytes),
  }
  return { headers, chunks: [...chunks, ...raw], bytes: jsonBytes + rawBytes }
}

/**
 * Encodes the answer to an infer request: the JSON, then the binary outputs in their order. The
 * type is application/octet-stream and Inference-Header-Content-Length is set only when binary
 * bytes follow.
 *
 * @throws OnecopyError REQUEST_INVALID for an FP16 or BF16 output that is not binary,
 *   RESPONSE_TOO_LARGE: before memory is allocated where the size is known, and for JSON when its
 *   text reaches the limit.
 * @see Open Inference Protocol V2, "Inference Response"; Triton's binary tensor data extension.
 */
export function encodeInferResponse(response: InferResponse): EncodedResponse {
  return encodeBinaryOnly(response) ?? withoutPause(encodeInSteps(response))
}

/** From this many elements on, text is written in slices. Fewer take less than a millisecond. */
const SLICED_FROM_ELEMENTS = 16 * 1024

/** Whether encoding takes so long that other requests would notice. */
export function isLongToEncode({ outputs, binary, places = [] }: InferResponse): boolean {
  let elements = 0
  for (const [i, { data }] of outputs.entries())
    if (binary[i] !== true && places[i] == null) elements += data.length
  return elements >= SLICED_FROM_ELEMENTS
}

/**
 * The same, in slices of a few milliseconds: between two of them the event loop serves other
 * requests.
 * @throws OnecopyError as encodeInferResponse.
 */
export async function encodeInferResponseInSlices(response: InferResponse): Promise<EncodedResponse> {
  return await inSlices(encodeInSteps(response))
}
