/** Validates the query and body of POST /run and POST /job/submit. */
import * as z from 'zod'
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
  /** Any other word is simple. */
  output_type: z
    .string()
    .transform((word) => (word === 'heavy' ? 'heavy' : 'simple'))
    .default('simple'),
})

export type RunQuery = z.output<typeof QuerySchema>

/** One thing that is wrong, and where: as FastAPI lists it. */
export interface InputIssue {
  readonly type: string
  readonly loc: readonly (string | number)[]
  readonly msg: string
}

/** What a request holds that cannot be taken; its clients expect a list of that. */
export class InvalidInput extends OnecopyError {
  readonly issues: readonly InputIssue[]

  constructor(issues: readonly InputIssue[]) {
    super('INPUT_INVALID', issues.map(({ loc, msg }) => [...loc.slice(1), msg].join(': ')).join('; '))
    this.issues = issues
  }
}

function invalid(msg: string, loc: readonly (string | number)[] = [], type = 'value_error'): InvalidInput {
  return new InvalidInput([{ type, loc: ['body', ...loc], msg }])
}

/** As a sentence: their own check, and not FastAPI's, finds it. */
function isEmpty(): OnecopyError {
  return new OnecopyError('INPUT_INVALID', 'Data is empty.')
}

/** The last value of a repeated parameter applies. @throws OnecopyError INPUT_INVALID. */
export function parseQuery(query: Readonly<Record<string, string | string[] | undefined>>): RunQuery {
  const last = Object.fromEntries(
    Object.entries(query).map(([name, value]) => [name, Array.isArray(value) ? value.at(-1) : value]),
  )
  const parsed = QuerySchema.safeParse(last)
  if (parsed.success) return parsed.data
  throw new InvalidInput(
    parsed.error.issues.map(({ path, message }) => ({
      ...{ type: 'value_error', msg: message },
      loc: ['query', ...path.map(String)],
    })),
  )
}

function describe(item: unknown): string {
  return item === null ? 'null' : Array.isArray(item) ? 'a list' : typeof item
}

function isKeyed(item: unknown): item is { readonly key: string; readonly input: string } {
  if (typeof item !== 'object' || item === null) return false
  const { key, input } = item as { key?: unknown; input?: unknown }
  return typeof key === 'string' && typeof input === 'string'
}

/** All texts, or all objects: the first item decides. */
function inputsOf(items: readonly unknown[]): string[] {
  const areKeyed = typeof items[0] === 'object' && items[0] !== null
  const wanted = areKeyed ? '{"key": text, "input": text}' : 'text'
  return items.map((item, place) => {
    if (areKeyed ? isKeyed(item) : typeof item === 'string')
      return areKeyed ? (item as { readonly input: string }).input : (item as string)
    const both = place === 0 ? 'text or {"key": text, "input": text}' : `${wanted} as in the items before`
    throw invalid(`item ${place}: expected ${both}, got ${describe(item)}`, [place], 'type_error')
  })
}

/**
 * The molecules of a body: a list of texts, or of objects with a `key` and an `input`.
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
  if (value.length === 0) throw isEmpty()
  return inputsOf(value)
}
