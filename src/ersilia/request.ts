/** Validates the query and body of POST /run and POST /job/submit. */
import { z } from 'zod'
import { OnecopyError } from '../errors.js'
import { ORIENTS } from './orient.js'

/** Booleans as FastAPI parses them. */
const TRUE = ['true', '1', 'yes', 'on', 't', 'y']
const FALSE = ['false', '0', 'no', 'off', 'f', 'n']

const flag = z
  .string()
  .toLowerCase()
  .refine((word) => TRUE.includes(word) || FALSE.includes(word), 'expected true or false')
  .transform((word) => TRUE.includes(word))
  .default(false)
const workers = z
  .string()
  .regex(/^[1-9]\d{0,8}$/, 'expected an integer from 1')
  .transform(Number)

const QuerySchema = z.object({
  orient: z.enum(ORIENTS, `expected one of ${ORIENTS.join(', ')}`).default('records'),
  fetch_cache: flag,
  save_cache: flag,
  cache_only: flag,
  /** Accepted and ignored: the server configures its workers. */
  min_workers: workers.default(1),
  max_workers: workers.default(16),
  output_type: z.enum(['simple', 'heavy'], 'expected simple or heavy').default('simple'),
})

export type RunQuery = z.output<typeof QuerySchema>

function invalid(message: string): OnecopyError {
  return new OnecopyError('INPUT_INVALID', message)
}

/** The last value of a repeated parameter applies. @throws OnecopyError INPUT_INVALID. */
export function parseQuery(query: Readonly<Record<string, string | string[] | undefined>>): RunQuery {
  const last = Object.fromEntries(
    Object.entries(query).map(([name, value]) => [name, Array.isArray(value) ? value.at(-1) : value]),
  )
  const parsed = QuerySchema.safeParse(last)
  if (parsed.success) return parsed.data
  throw invalid(parsed.error.issues.map(({ path, message }) => `${path.join('.')}: ${message}`).join('; '))
}

function describe(item: unknown): string {
  return item === null ? 'null' : Array.isArray(item) ? 'a list' : typeof item
}

function inputOf(item: unknown, place: number): string {
  const input =
    typeof item === 'object' && item !== null && 'input' in item ? (item as { input: unknown }).input : item
  if (typeof input === 'string') return input
  throw invalid(`item ${place}: expected text or {"key": ..., "input": text}, got ${describe(input)}`)
}

/**
 * The molecules of a body: a list of strings, or of objects with an `input`.
 * @throws OnecopyError INPUT_INVALID.
 */
export function parseInputs(body: Uint8Array): string[] {
  let value: unknown
  try {
    // Replacing invalid UTF-8 would silently change the molecule.
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body))
  } catch (thrown) {
    if (thrown instanceof TypeError) throw invalid('expected a body in UTF-8')
    throw invalid('expected a JSON list of molecules, got a body that is not JSON')
  }
  if (!Array.isArray(value)) throw invalid(`expected a list of molecules, got ${describe(value)}`)
  if (value.length === 0) throw invalid('Data is empty.')
  return value.map(inputOf)
}
