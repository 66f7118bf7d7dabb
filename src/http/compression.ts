/**
 * Compresses responses for clients that accept it, by q-value (RFC 9110, 12.5.3); equal values are taken in
 * the order of the header. A client that accepts no coding gets the response uncompressed. zlib runs in the
 * thread pool.
 */
import { Readable } from 'node:stream'
import { promisify } from 'node:util'
import { createDeflate, createGzip, deflate, gzip } from 'node:zlib'
import type { Context, Next } from 'koa'

/** Below this a response fits into one packet, and compressing it saves nothing. */
const SMALLEST_BYTES = 1024
/** At higher levels tensors take longer and are hardly smaller. */
const OPTIONS = { level: 1 }

const ENCODERS = {
  gzip: { whole: promisify<Buffer, object, Buffer>(gzip), stream: createGzip },
  deflate: { whole: promisify<Buffer, object, Buffer>(deflate), stream: createDeflate },
}

/** An old name of gzip that recipients treat as gzip (RFC 9110, 8.4.1.3). */
const X_GZIP = /(?<![\w-])x-gzip(?![\w-])/gi

/** The coding that the client prefers; null for none. */
function encodingFor(ctx: Context): keyof typeof ENCODERS | null {
  const { headers } = ctx.req
  if (headers['accept-encoding'] === undefined) return null
  headers['accept-encoding'] = String(headers['accept-encoding']).replace(X_GZIP, 'gzip')
  const best = ctx.acceptsEncodings('gzip', 'deflate', 'identity')
  return best === 'gzip' || best === 'deflate' ? best : null
}

/** Middleware around the routes; the length of the JSON in a response counts bytes before compression. */
export function compressResponses(ctx: Context, next: Next): Promise<void> {
  if (ctx.res.hasHeader('Vary')) ctx.vary('Accept-Encoding')
  else ctx.res.setHeader('Vary', 'Accept-Encoding')
  return ctx.req.headers['accept-encoding'] === undefined ? next() : compress(ctx, next)
}

async function compress(ctx: Context, next: Next): Promise<void> {
  await next()
  const encoding = encodingFor(ctx)
  const { body } = ctx
  if (encoding === null || body === undefined || body === null || ctx.length < SMALLEST_BYTES) return
  ctx.set('Content-Encoding', encoding)
  if (body instanceof Readable) {
    ctx.body = body.pipe(ENCODERS[encoding].stream(OPTIONS))
    return
  }
  const bytes = Buffer.isBuffer(body)
    ? body
    : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  ctx.body = await ENCODERS[encoding].whole(bytes, OPTIONS)
}
