/**
 * A client of the Open Inference Protocol V2, independent of the server's code. Tensors are little-endian
 * bytes, or strings.
 */

export interface WireTensor {
  readonly name: string
  readonly datatype: string
  readonly shape: readonly number[]
  readonly bytes?: Uint8Array
  readonly strings?: readonly string[]
}

export type Encoding = 'json' | 'binary'

const WIDTH: Record<string, number> = {
  BOOL: 1,
  UINT8: 1,
  INT8: 1,
  UINT16: 2,
  INT16: 2,
  FP16: 2,
  BF16: 2,
  UINT32: 4,
  INT32: 4,
  FP32: 4,
  UINT64: 8,
  INT64: 8,
  FP64: 8,
}

/** Values without a JSON form follow the JSON mapping of proto3. */
function floatText(number: number): string {
  if (Number.isNaN(number)) return '"NaN"'
  if (!Number.isFinite(number)) return number > 0 ? '"Infinity"' : '"-Infinity"'
  return Object.is(number, -0) ? '-0' : String(number)
}

function jsonElements({ datatype, bytes, strings }: WireTensor): string[] {
  if (strings !== undefined) return strings.map((text) => JSON.stringify(text))
  const view = new DataView(bytes?.buffer ?? new ArrayBuffer(0), bytes?.byteOffset, bytes?.byteLength)
  const width = WIDTH[datatype] ?? 0
  const elements: string[] = []
  for (let at = 0; at < view.byteLength; at += width) elements.push(elementText(view, at, datatype))
  return elements
}

function elementText(view: DataView, at: number, datatype: string): string {
  switch (datatype) {
    case 'BOOL':
      return view.getUint8(at) === 0 ? 'false' : 'true'
    case 'UINT8':
      return String(view.getUint8(at))
    case 'INT8':
      return String(view.getInt8(at))
    case 'UINT16':
      return String(view.getUint16(at, true))
    case 'INT16':
      return String(view.getInt16(at, true))
    case 'UINT32':
      return String(view.getUint32(at, true))
    case 'INT32':
      return String(view.getInt32(at, true))
    case 'UINT64':
      return String(view.getBigUint64(at, true))
    case 'INT64':
      return String(view.getBigInt64(at, true))
    case 'FP32':
      return floatText(view.getFloat32(at, true))
    case 'FP64':
      return floatText(view.getFloat64(at, true))
    default:
      throw new Error(`${datatype} has no JSON form`)
  }
}

/** Elements as REST's binary data and gRPC's raw contents have them. */
export function binaryBytes({ bytes, strings }: WireTensor): Uint8Array {
  if (bytes !== undefined) return bytes
  const parts = (strings ?? []).flatMap((text) => {
    const encoded = Buffer.from(text)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(encoded.length)
    return [length, encoded]
  })
  return Buffer.concat(parts)
}

export function encodeRequest(
  inputs: readonly WireTensor[],
  encoding: Encoding,
): { body: Uint8Array; headers: Record<string, string> } {
  if (encoding === 'json') {
    const tensors = inputs.map((tensor) => {
      const head = JSON.stringify({ name: tensor.name, shape: tensor.shape, datatype: tensor.datatype })
      return `${head.slice(0, -1)},"data":[${jsonElements(tensor).join(',')}]}`
    })
    return { body: Buffer.from(`{"inputs":[${tensors.join(',')}]}`), headers: {} }
  }
  const blobs = inputs.map(binaryBytes)
  const head = Buffer.from(
    JSON.stringify({
      inputs: inputs.map(({ name, shape, datatype }, i) => ({
        name,
        shape,
        datatype,
        parameters: { binary_data_size: blobs[i]?.byteLength },
      })),
      parameters: { binary_data_output: true },
    }),
  )
  return {
    body: Buffer.concat([head, ...blobs]),
    headers: { 'Inference-Header-Content-Length': String(head.length) },
  }
}

interface JsonOutput {
  name: string
  datatype: string
  shape: number[]
  data?: (number | string | boolean)[]
  parameters?: { binary_data_size?: number }
}

function fromJsonData(output: JsonOutput, text: string): WireTensor {
  const { name, datatype, shape, data = [] } = output
  if (datatype === 'BYTES') return { name, datatype, shape, strings: data as string[] }
  const width = WIDTH[datatype] ?? 0
  const bytes = new Uint8Array(data.length * width)
  const view = new DataView(bytes.buffer)
  // Integers beyond 2^53 are read from the text, because JSON.parse would round them.
  const exact = datatype.endsWith('INT64') ? integersOf(name, text) : []
  data.forEach((element, i) => {
    const at = i * width
    if (datatype === 'UINT64') view.setBigUint64(at, BigInt(exact[i] ?? 0), true)
    else if (datatype === 'INT64') view.setBigInt64(at, BigInt(exact[i] ?? 0), true)
    else if (datatype === 'FP32') view.setFloat32(at, Number(element), true)
    else if (datatype === 'FP64') view.setFloat64(at, Number(element), true)
    else if (width === 4) view.setUint32(at, Number(element), true)
    else if (width === 2) view.setUint16(at, Number(element), true)
    else view.setUint8(at, Number(element))
  })
  return { name, datatype, shape, bytes }
}

function integersOf(name: string, text: string): string[] {
  const from = text.indexOf('"data":[', text.indexOf(`"name":${JSON.stringify(name)}`)) + '"data":['.length
  const inside = text.slice(from, text.indexOf(']', from))
  return inside === '' ? [] : inside.split(',')
}

export async function decodeResponse(response: Response): Promise<WireTensor[]> {
  const body = Buffer.from(await response.arrayBuffer())
  const headLength = response.headers.get('Inference-Header-Content-Length')
  const head = headLength === null ? body : body.subarray(0, Number(headLength))
  const text = head.toString('utf8')
  let at = head.length
  return (JSON.parse(text) as { outputs: JsonOutput[] }).outputs.map((output) => {
    const size = output.parameters?.binary_data_size
    if (size === undefined) return fromJsonData(output, text)
    const bytes = Uint8Array.from(body.subarray(at, at + size))
    at += size
    const { name, datatype, shape } = output
    return datatype === 'BYTES'
      ? { name, datatype, shape, strings: stringsOf(bytes) }
      : { name, datatype, shape, bytes }
  })
}

export function stringsOf(bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer)
  const strings: string[] = []
  for (let at = 0; at < bytes.length; ) {
    const length = view.getUint32(at, true)
    strings.push(new TextDecoder().decode(bytes.subarray(at + 4, at + 4 + length)))
    at += 4 + length
  }
  return strings
}

export interface InferOptions {
  readonly url: string
  readonly model: string
  readonly inputs: readonly WireTensor[]
  readonly encoding?: Encoding
  readonly headers?: Record<string, string>
}

/** One request on a new connection, so that round robin assigns it to the next worker. */
export async function infer({
  url,
  model,
  inputs,
  encoding = 'json',
  headers = {},
}: InferOptions): Promise<Response> {
  const request = encodeRequest(inputs, encoding)
  return await fetch(`${url}/v2/models/${model}/infer`, {
    method: 'POST',
    body: request.body as Uint8Array<ArrayBuffer>,
    headers: { connection: 'close', ...request.headers, ...headers },
  })
}

export async function inferOutputs(options: InferOptions): Promise<WireTensor[]> {
  const response = await infer(options)
  if (response.status !== 200) throw new Error(`status ${response.status}: ${await response.text()}`)
  return await decodeResponse(response)
}
