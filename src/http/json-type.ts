/**
 * The type of JSON responses is exactly `application/json`: KServe's client compares the whole value, and
 * JSON has no charset parameter (RFC 8259, 11). Koa adds one.
 */
import type { Context, Next } from 'koa'

const WITH_CHARSET = 'application/json; charset=utf-8'

/** Middleware around the routes. */
export async function plainJsonType(ctx: Context, next: Next): Promise<void> {
  await next()
  const { res } = ctx
  if (res.getHeader('Content-Type') === WITH_CHARSET) res.setHeader('Content-Type', 'application/json')
}
