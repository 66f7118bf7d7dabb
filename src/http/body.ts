/**
 * Reads a request body into memory of its own, never more than the limit, decompressed where the client
 * compressed it: then the limit holds for what was sent and for what comes out, and inflating stops where it
 * is passed. zlib works in the thread pool. The bytes behind the JSON header start at a multiple of eight, so
 * that numeric tensors are views and not copies.
 */
import type { IncomingMessage } from 'node:http'
import { createGunzip, createInflate, type Gunzip, type Inflate } from 'node:zlib'
import { OnecopyError } from '../errors.js'
import { faultOf } from './connection-errors.js'

const ALIGNMENT_BYTES = 64
const ACCEPTED_ENCODINGS = 'gzip, deflate'

export interface BodyOptions {
  readonly maxBytes: number
  /** Length of the JSON in front of binary tensors, where the request names one. */
  readonly jsonBytes: number | null
}

function tooLarge(maxBytes: number, got: string): OnecopyError {
  return new OnecopyError('BODY_TOO_LARGE', `expected a body of at most ${maxBytes} bytes, got ${got}`, {
    // What is left of the body is not read: the connection cannot be used again.
    headers: { Connection: 'close' },
  })
}

/**
 * The transform that undoes the request's Content-Encoding; null where there is none. Members of the list that are
 * empty or `identity` change nothing, and `x-gzip` is gzip (RFC 9110, 5.6.1, 8.4.1.3); more than one coding is refused.
 */
function decompressor(request: IncomingMessage): Gunzip | Inflate | null {
  const encoding = request.headers['content-encoding']?.trim().toLowerCase() ?? ''
  const codings = encoding.split(',').flatMap((coding) => {
    const name = coding.trim()
    return name === '' || name === 'identity' ? [] : [name]
  })
  const [coding] = codings
  if (coding === undefined) return null
  if (codings.length === 1 && (coding === 'gzip' || coding === 'x-gzip')) return createGunzip()
  if (codings.length === 1 && coding === 'deflate') return createInflate()
  throw new OnecopyError(
    'CONTENT_ENCODING_UNSUPPORTED',
    `expected Content-Encoding ${ACCEPTED_ENCODINGS} or none, got ${JSON.stringify(encoding)}`,
    { headers: { 'Accept-Encoding': ACCEPTED_ENCODINGS, Connection: 'close' } },
  )
}

/** Room for `length` body bytes, placed so that byte `jsonBytes` of them is aligned. */
function alignedRoom(length: number, jsonBytes: number): Uint8Array<ArrayBuffer> {
  const pad = (ALIGNMENT_BYTES - (jsonBytes % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES
  return new Uint8Array(new ArrayBuffer(pad + length), pad, length)
}

/** Listeners rather than an async iterator: this runs for every request, and an iterator costs as much as the rest of it. */
function readPlain(request: IncomingMessage, take: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    request.on('data', (chunk: Buffer) => {
      try {
        take(chunk)
      } catch (thrown) {
        request.removeAllListeners('data').pause()
        reject(thrown)
      }
    })
    request.on('end', resolve)
    request.on('error', reject)
    request.on('close', () => reject(new Error('closed before its end')))
  })
}

/** Sends at most `maxBytes` of the request through `inflate`, and hands what comes out to `take`. */
function readInflated({
  request,
  inflate,
  maxBytes,
  take,
}: {
  request: IncomingMessage
  inflate: Gunzip | Inflate
  maxBytes: number
  take: (chunk: Buffer) => void
}): Promise<void> {
  return new Promise((resolve, reject) => {
    let sentBytes = 0
    let isOver = false
    const fail = (thrown: unknown) => {
      if (isOver) return
      isOver = true
      request.removeAllListeners('data').pause()
      inflate.destroy()
      reject(thrown)
    }
    const orFail = (work: (chunk: Buffer) => void) => (chunk: Buffer) => {
      if (isOver) return
      try {
        work(chunk)
      } catch (thrown) {
        fail(thrown)
      }
    }
    request.on(
      'data',
      orFail((chunk) => {
        sentBytes += chunk.length
        if (sentBytes > maxBytes) throw tooLarge(maxBytes, 'more')
        if (inflate.write(chunk)) return
        request.pause()
        inflate.once('drain', () => {
          if (!isOver) request.resume()
        })
      }),
    )
    request.on('end', () => {
      if (!isOver) inflate.end()
    })
    request.on('error', fail)
    request.on('close', () => {
      if (!request.complete) fail(new Error('closed before its end'))
    })
    inflate.on('data', orFail(take))
    inflate.on('error', fail)
    inflate.on('end', () => {
      // zlib ends early, without an error, where something follows the data, and leaves that alone.
      if (inflate.bytesWritten === sentBytes) resolve()
      else fail(new Error('bytes follow the compressed data'))
    })
  })
}

/**
 * @throws OnecopyError BODY_TOO_LARGE, CONTENT_ENCODING_UNSUPPORTED, BODY_MALFORMED (it does not
 *   decompress, ends too early, or something follows), REQUEST_CANCELLED (the client left in mid-body),
 *   REQUEST_TIMEOUT, REQUEST_MALFORMED (the connection was ended in mid-body; its client has been told).
 */
export async function readBody(
  request: IncomingMessage,
  options: BodyOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const { maxBytes } = options
  const declared = request.headers['content-length']
  const declaredBytes = declared === undefined ? null : Number(declared)
  if (declaredBytes !== null && declaredBytes > maxBytes) throw tooLarge(maxBytes, `${declaredBytes}`)
  const inflate = decompressor(request)

  const chunks: Buffer[] = []
  let total = 0
  const take = (chunk: Buffer) => {
    if (total + chunk.length > maxBytes) throw tooLarge(maxBytes, 'more')
    chunks.push(chunk)
    total += chunk.length
  }
  try {
    if (inflate === null) await readPlain(request, take)
    else await readInflated({ request, inflate, maxBytes, take })
  } catch (thrown) {
    if (thrown instanceof OnecopyError) throw thrown
    if (request.destroyed && !request.complete) {
      throw (
        faultOf(request.socket) ??
        new OnecopyError('REQUEST_CANCELLED', 'the client left before its body was complete')
      )
    }
    throw new OnecopyError('BODY_MALFORMED', 'the body does not decompress as its Content-Encoding says', {
      headers: { Connection: 'close' },
    })
  }
  const [only] = chunks
  // Tensors in JSON get memory of their own anyway, so a body in one piece is read where it is.
  if (options.jsonBytes === null && chunks.length === 1) return only as Buffer<ArrayBuffer>
  const body = alignedRoom(total, options.jsonBytes ?? 0)
  let at = 0
  for (const chunk of chunks) {
    body.set(chunk, at)
    at += chunk.length
  }
  return body
}
