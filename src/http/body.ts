/**
 * Reads a request body into separate memory, at most up to the limit, and decompresses it. The
 * limit then applies to both the compressed and the decompressed size, and decompression stops at
 * the limit. zlib runs in the thread pool. The bytes after the JSON header start at a multiple of
 * eight, so that numeric tensors are views instead of copies.
 */
import type { IncomingMessage } from 'node:http'
import { createGunzip, createInflate, type Gunzip, type Inflate } from 'node:zlib'
import { OnecopyError } from '../errors.js'
import { faultOf } from './connection-errors.js'

const ALIGNMENT_BYTES = 64
/** Copying this much, into memory that is not resident yet, takes about two milliseconds. */
const COPY_BYTES = 4 * 1024 * 1024
const ACCEPTED_ENCODINGS = 'gzip, deflate'

export interface BodyOptions {
  readonly maxBytes: number
  /** Length of the JSON before binary tensors, if the request declares it. */
  readonly jsonBytes: number | null
}

function tooLarge(maxBytes: number, got: string): OnecopyError {
  return new OnecopyError('BODY_TOO_LARGE', `expected a body of at most ${maxBytes} bytes, got ${got}`, {
    // The rest of the body is not read, so the connection cannot be reused.
    headers: { Connection: 'close' },
  })
}

/**
 * The transform that decodes the request's Content-Encoding; null without one. Empty members of the
 * list and `identity` have no effect, and `x-gzip` is gzip (RFC 9110, 5.6.1, 8.4.1.3). More than
 * one coding is rejected.
 */
function decompressor(request: IncomingMessage): Gunzip | Inflate | null {
  const header = request.headers['content-encoding']
  if (header === undefined) return null
  const encoding = header.trim().toLowerCase()
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

/** A buffer for `length` body bytes, placed so that byte `jsonBytes` is aligned. */
function alignedRoom(length: number, jsonBytes: number): Uint8Array<ArrayBuffer> {
  const pad = (ALIGNMENT_BYTES - (jsonBytes % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES
  return new Uint8Array(new ArrayBuffer(pad + length), pad, length)
}

/** Copies chunks into `body`. Other requests are served between pieces of a large one. */
async function joined(
  chunks: readonly Buffer[],
  body: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  let at = 0
  let pauseAt = COPY_BYTES
  for (const chunk of chunks) {
    if (at >= pauseAt) {
      pauseAt = at + COPY_BYTES
      await new Promise((resolve) => setImmediate(resolve))
    }
    body.set(chunk, at)
    at += chunk.length
  }
  return body
}

/** Uses listeners: this runs for every request, and an async iterator would double its cost. */
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
    let isEnded = false
    request.on('end', () => {
      isEnded = true
      resolve()
    })
    request.on('error', reject)
    // Every request closes: an error with its stack is made only if it is needed.
    request.on('close', () => {
      if (!isEnded) reject(new Error('closed before its end'))
    })
  })
}

/** Pipes at most `maxBytes` of the request through `inflate`, and passes the result to `take`. */
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
      // zlib ends early without an error if bytes follow the data, and ignores them.
      if (inflate.bytesWritten === sentBytes) resolve()
      else fail(new Error('bytes follow the compressed data'))
    })
  })
}

/**
 * @throws OnecopyError BODY_TOO_LARGE, CONTENT_ENCODING_UNSUPPORTED, BODY_MALFORMED (it does not
 *   decompress, ends too early, or bytes follow it), REQUEST_CANCELLED (the client disconnected),
 *   REQUEST_TIMEOUT, REQUEST_MALFORMED (the connection failed during the body and has been
 *   answered).
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
        new OnecopyError('REQUEST_CANCELLED', 'the client disconnected before its body was complete')
      )
    }
    throw new OnecopyError('BODY_MALFORMED', 'the body does not decompress as its Content-Encoding says', {
      headers: { Connection: 'close' },
    })
  }
  const [only] = chunks
  // Tensors in JSON are copied anyway, so a body in one chunk is parsed in place.
  if (options.jsonBytes === null && chunks.length === 1) return only as Buffer<ArrayBuffer>
  return await joined(chunks, alignedRoom(total, options.jsonBytes ?? 0))
}
