/** Schemas of durations and sizes as people write them; parsed, they are milliseconds and bytes. */
import { z } from 'zod'
import { parseBytes, parseDurationMs } from '../units.js'

export const durationMs = z.string().transform((value, context) => {
  const ms = parseDurationMs(value)
  if (ms !== null) return ms
  const message = `expected a duration such as 500ms, 30s or 2m, got ${JSON.stringify(value)}`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})

/** A duration without which there would be no limit: none is not offered. */
export const timeLimitMs = durationMs.refine((ms) => ms > 0, 'expected a duration above 0')

export const sizeBytes = z.union([z.string(), z.int().transform(String)]).transform((value, context) => {
  const bytes = parseBytes(value)
  if (bytes !== null && bytes > 0) return bytes
  const message = `expected a size such as 64KiB, 16MiB or 2GiB, got ${JSON.stringify(value)}`
  context.addIssue({ code: 'custom', message })
  return z.NEVER
})
