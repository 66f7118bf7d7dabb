/** Reads the JSON files of a model's folder; errors name the file and the key. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { formatBytes } from '../units.js'

/** Vocabularies of 250,000 tokens and more take some 20 MB. */
const MAX_JSON_BYTES = 256 * 1024 * 1024

export function invalid(path: string, what: string): OnecopyError {
  return new OnecopyError('REPOSITORY_INVALID', `${path}: ${what}`)
}

function issueText({ path, message }: z.core.$ZodIssue): string {
  return path.length === 0 ? message : `${path.join('.')}: ${message}`
}

/** Null where there is no such file. */
export async function readOptionalText(path: string): Promise<string | null> {
  const found = await stat(path).catch(() => null)
  if (found === null) return null
  if (!found.isFile()) throw invalid(path, 'expected a regular file')
  if (found.size > MAX_JSON_BYTES)
    throw invalid(path, `expected at most ${formatBytes(MAX_JSON_BYTES)}, got ${formatBytes(found.size)}`)
  try {
    return await readFile(path, 'utf8')
  } catch (thrown) {
    throw invalid(path, `expected a file that can be read: ${messageOf(thrown)}`)
  }
}

export function parseFile<Schema extends z.ZodType>(
  path: string,
  text: string,
  schema: Schema,
): z.output<Schema> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (thrown) {
    throw invalid(path, `expected JSON: ${messageOf(thrown)}`)
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  throw invalid(path, parsed.error.issues.slice(0, 3).map(issueText).join('; '))
}

/**
 * A file of the folder by its schema; null where there is none.
 * @throws OnecopyError REPOSITORY_INVALID.
 */
export async function readOptional<Schema extends z.ZodType>(
  folder: string,
  name: string,
  schema: Schema,
): Promise<z.output<Schema> | null> {
  const path = join(folder, name)
  const text = await readOptionalText(path)
  return text === null ? null : parseFile(path, text, schema)
}

export function sha256Of(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}

export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer)
  return hash.digest('hex')
}
