/**
 * The type of JSON answers is `application/json` and nothing more: KServe's client compares it exactly, and JSON has no
 * parameter charset (RFC 8259, 11). Koa adds one.
 */
import type { Context, Next } from 'koa'

const WITH_CHARSET = 'application/json; charset=utf-8'

/** Middleware around whatever sets a body. */
export async function plainJsonType(ctx: Context, next: Next): Promise<void> {
  await next()
  const { res } = ctx
  if (res.getHeader('Content-Type') === WITH_CHARSET) res.setHeader('Content-Type', 'application/json')
}
