/** Requests of the Open Inference Protocol as unmodified clients put them on the wire, byte by byte. */
import { RawClient } from './raw-client.js'

export interface Wire {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

export async function exchange(
  url: string,
  lines: readonly string[],
  body: Uint8Array = Buffer.alloc(0),
): Promise<Wire> {
  const head = Buffer.from([...lines, '', ''].join('\r\n'), 'latin1')
  const client = await RawClient.connect(url, Buffer.concat([head, body]))
  const [answer] = await client.answered()
  client.socket.destroy()
  if (answer === undefined) throw new Error('expected an answer')
  return { ...answer, body: Buffer.from(answer.body, 'latin1') }
}

export function floats(...values: number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer)
}

export function int64s(...values: bigint[]): Buffer {
  return Buffer.from(BigInt64Array.from(values).buffer)
}

/** Elements as the protocol has them: a little-endian length of four bytes, then the bytes. */
export function bytesElements(...texts: string[]): Buffer {
  return Buffer.concat(
    texts.flatMap((text) => {
      const length = Buffer.alloc(4)
      length.writeUInt32LE(Buffer.byteLength(text))
      return [length, Buffer.from(text)]
    }),
  )
}

/** A binary answer as such a client takes it apart: JSON by its length, then tensor after tensor. */
export function takeApart({ headers, body }: Wire): { json: Record<string, unknown>; binary: Buffer } {
  const jsonBytes = Number(headers['inference-header-content-length'])
  return {
    json: JSON.parse(body.subarray(0, jsonBytes).toString('utf8')) as Record<string, unknown>,
    binary: body.subarray(jsonBytes),
  }
}

const AGENT = 'User-Agent: python/gevent-http-client-2.3.9'

/** No Content-Type, and no length of the JSON where everything is JSON. */
export function tritonPost(path: string, body: Uint8Array, more: readonly string[] = []): string[] {
  const length = `content-length: ${body.byteLength}`
  return [`POST ${path} HTTP/1.1`, AGENT, 'Host: 127.0.0.1:8000', 'Connection: keep-alive', ...more, length]
}

export function tritonGet(path: string): string[] {
  return [`GET ${path} HTTP/1.1`, AGENT, 'Host: 127.0.0.1:8000', 'Connection: keep-alive']
}
