/** Small JSON bodies of routes other than inference. */
import type { Context } from 'koa'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { readBody } from './body.js'

const MAX_BODY_BYTES = 64 * 1024

/**
 * The body as JSON; an empty body is an empty object.
 * @throws OnecopyError BODY_MALFORMED, REQUEST_INVALID (it does not match the schema), and the errors of
 *   readBody.
 */
export async function readJson<Schema extends z.ZodType>(
  ctx: Context,
  schema: Schema,
): Promise<z.output<Schema>> {
  const body = await readBody(ctx.req, { maxBytes: MAX_BODY_BYTES, jsonBytes: null })
  const text = Buffer.from(body).toString('utf8').trim()
  let value: unknown
  try {
    value = text === '' || text === '""' ? {} : JSON.parse(text)
  } catch (thrown) {
    throw new OnecopyError('BODY_MALFORMED', `expected JSON: ${messageOf(thrown)}`)
  }
  const parsed = schema.safeParse(value)
  if (!parsed.success) throw new OnecopyError('REQUEST_INVALID', z.prettifyError(parsed.error))
  return parsed.data
}
