/** Schemas for durations, sizes, rates and similar values; the parsed values are milliseconds and bytes. */
import * as z from 'zod'
import { parseBytes, parseDurationMs } from '../units.js'

export const durationMs = z.string().transform((value, context) => {
  const ms = parseDurationMs(value)
  if (ms !== null) return ms
  const message = `expected a duration such as 500ms, 30s or 2m, got ${JSON.stringify(value)}`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

/** For limits that cannot be disabled: the duration must be above 0. */
export const timeLimitMs = durationMs.refine((ms) => ms > 0, 'expected a duration above 0')

export const sizeBytes = z.union([z.string(), z.int().transform(String)]).transform((value, context) => {
  const bytes = parseBytes(value)
  if (bytes !== null && bytes > 0) return bytes
  const message = `expected a size such as 64KiB, 16MiB or 2GiB, got ${JSON.stringify(value)}`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

const LARGEST_RATE = 1_000_000_000

/** `100/1s`; 0 means no limit and becomes null. */
export const rateLimit = z
  .union([z.string(), z.literal(0).transform(String)])
  .transform((value, context): { readonly requests: number; readonly windowMs: number } | null => {
    if (value === '0') return null
    const [, count = '', time = ''] = /^(\d+)\/(.+)$/.exec(value) ?? []
    const requests = Number(count)
    const windowMs = parseDurationMs(time) ?? parseDurationMs(`1${time}`)
    if (requests > 0 && requests <= LARGEST_RATE && windowMs !== null && windowMs >= 1)
      return { requests, windowMs }
    const message = `expected a rate such as 100/1s or 5000/1m, or 0, got ${JSON.stringify(value)}`
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })

export const switchedOn = z
  .union([z.boolean(), z.enum(['on', 'off', 'true', 'false', '1', '0'])], 'expected on or off')
  .transform((value) => value === true || value === 'on' || value === 'true' || value === '1')

/** Comma-separated names; spaces around a name do not belong to it. */
export const names = z.string().transform((value) =>
  value
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== ''),
)

function isOrigin(value: string): boolean {
  return value === '*' || (URL.canParse(value) && new URL(value).origin === value)
}

/** CORS origins, `https://host[:port]` or `*`: comma-separated text or a list. */
export const origins = z
  .union([z.string().transform((value) => value.split(',')), z.array(z.string())])
  .transform((values, context) => {
    const list = values.map((value) => value.trim()).filter((value) => value !== '')
    const wrong = list.find((value) => !isOrigin(value))
    if (wrong === undefined) return list
    const message = `expected origins such as https://app.example (no path, no trailing slash) or *, got ${JSON.stringify(wrong)}`
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })

/** Empty means not configured. */
export const serviceUrl = z
  .string()
  .refine(
    (value) => value === '' || (URL.canParse(value) && /^https?:$/.test(new URL(value).protocol)),
    'expected a URL such as http://localhost:4318',
  )
