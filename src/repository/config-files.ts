/**
 * Reads the files that a model's config names: sample requests and labels. They are small, in the folder of
 * the config, and validated before the model is served.
 */
import { constants, type FileHandle, open, stat } from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import * as z from 'zod'
import { messageOf } from '../errors.js'
import { inferRequestSchema } from '../protocol/v2/schema.js'
import { formatBytes } from '../units.js'

const MAX_SAMPLE_BYTES = 8 * 1024 * 1024
const MAX_LABELS_BYTES = 4 * 1024 * 1024
export const MAX_LABELS = 100_000
export const MAX_LABEL_CHARACTERS = 1000

/** Reads a regular UTF-8 text file of at most `maxBytes`; follows links. */
export async function readTextFile(path: string, maxBytes: number): Promise<string> {
  // Pipes have no end and devices have no size, so they are not opened.
  requireFile(await stat(path))
  // Without the flag, open would block if a pipe has replaced the file since.
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  const found = await file.stat()
  requireFile(found)
  if (found.size > maxBytes)
    throw new Error(`expected at most ${formatBytes(maxBytes)}, got ${formatBytes(found.size)}`)
  return new TextDecoder('utf-8', { fatal: true }).decode(await readBytes(file, found.size))
}

function requireFile(found: { isFile(): boolean }): void {
  if (!found.isFile()) throw new Error('expected a regular file')
}

/** Reads at most `bytes`, even if the file grows meanwhile; fewer if it shrinks. */
async function readBytes(file: FileHandle, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes)
  let filled = 0
  while (filled < bytes) {
    const { bytesRead } = await file.read(buffer, filled, bytes - filled, filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

function pathIn(folder: string, name: string): string {
  const relative = normalize(name)
  if (isAbsolute(relative) || relative.split('/').includes('..'))
    throw new Error(`${JSON.stringify(name)}: expected a file inside the config's folder`)
  return join(folder, relative)
}

async function readNamed(folder: string, name: string, maxBytes: number): Promise<string> {
  const path = pathIn(folder, name)
  try {
    return await readTextFile(path, maxBytes)
  } catch (thrown) {
    const isMissing = (thrown as NodeJS.ErrnoException).code === 'ENOENT'
    throw new Error(
      `${JSON.stringify(name)}: ${isMissing ? `expected a file at ${path}, found none` : messageOf(thrown)}`,
    )
  }
}

/**
 * Validates a sample against the schema of an infer request with all its data in JSON, and returns its path.
 * Whether the model accepts it is known only when it runs.
 */
export async function checkSample(folder: string, name: string): Promise<string> {
  const text = await readNamed(folder, name, MAX_SAMPLE_BYTES)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (thrown) {
    throw new Error(`${JSON.stringify(name)}: expected JSON: ${messageOf(thrown)}`)
  }
  const parsed = inferRequestSchema.safeParse(value)
  if (!parsed.success)
    throw new Error(
      `${JSON.stringify(name)}: expected the body of an infer request: ${z.prettifyError(parsed.error)}`,
    )
  const empty = parsed.data.inputs.find(({ data }) => data === undefined || data === null)
  if (empty !== undefined)
    throw new Error(
      `${JSON.stringify(name)}: expected input ${JSON.stringify(empty.name)} to have its data in JSON`,
    )
  return pathIn(folder, name)
}

/** Reads one label per line; a trailing line break adds no label. */
export async function readLabels(folder: string, name: string): Promise<string[]> {
  const lines = (await readNamed(folder, name, MAX_LABELS_BYTES)).split(/\r\n|\n|\r/)
  if (lines.at(-1) === '') lines.pop()
  const problem = (line: number, what: string) =>
    new Error(`${JSON.stringify(name)}, line ${line + 1}: ${what}`)
  if (lines.length === 0)
    throw new Error(`${JSON.stringify(name)}: expected one label per line, got an empty file`)
  if (lines.length > MAX_LABELS) throw problem(MAX_LABELS, `expected at most ${MAX_LABELS} labels`)
  for (const [i, line] of lines.entries()) {
    if (line === '') throw problem(i, 'expected a label, got an empty line')
    if (line.length > MAX_LABEL_CHARACTERS)
      throw problem(i, `expected at most ${MAX_LABEL_CHARACTERS} characters`)
    // Plain letters in UTF-16 are also valid UTF-8, with NUL characters.
    if (line.includes('\0')) throw problem(i, 'expected text in UTF-8, got a NUL')
  }
  return lines
}
