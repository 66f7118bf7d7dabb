/**
 * Keeps the measured memory of a model beside its image in the compile cache, because images never change. A
 * record that is missing or damaged costs another measurement.
 */
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { type CompileCache, makeWorkFolder } from './cache.js'

const RecordSchema = z.strictObject({ privateBytes: z.int().nonnegative() })

function recordName(key: string): string {
  return `${key}.memory.json`
}

/** The private memory per worker in bytes, as measured earlier; null if it was not. */
export async function findMemoryRecord(
  { folders }: Pick<CompileCache, 'folders'>,
  key: string,
): Promise<number | null> {
  for (const folder of folders) {
    try {
      const text = await readFile(join(folder, recordName(key)), 'utf8')
      return RecordSchema.parse(JSON.parse(text)).privateBytes
    } catch {
      // Missing or damaged.
    }
  }
  return null
}

/** Failure only means that the model is measured again. */
export async function keepMemoryRecord(
  cache: CompileCache,
  key: string,
  privateBytes: number,
): Promise<void> {
  const workFolder = await makeWorkFolder(cache).catch(() => null)
  if (workFolder === null) return
  try {
    const path = join(workFolder, recordName(key))
    await writeFile(path, JSON.stringify({ privateBytes }), { mode: 0o600 })
    await rename(path, join(cache.writable, recordName(key)))
  } catch {
    // A full disk or a folder that became read-only.
  } finally {
    await rm(workFolder, { recursive: true, force: true })
  }
}
