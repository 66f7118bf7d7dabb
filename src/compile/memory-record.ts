/** Keeps the measured memory of a model in the compile cache, because images never change. */
import { rm } from 'node:fs/promises'
import * as z from 'zod'
import { type CompileCache, makeWorkFolder } from './cache.js'
import { findRecord, keepRecord } from './cache-record.js'

const RecordSchema = z.strictObject({ privateBytes: z.int().nonnegative() })

function recordName(key: string): string {
  return `${key}.memory.json`
}

/** The private memory per worker in bytes, as measured earlier; null if it was not. */
export async function findMemoryRecord(
  cache: Pick<CompileCache, 'folders'>,
  key: string,
): Promise<number | null> {
  const record = await findRecord(cache, recordName(key), { schema: RecordSchema })
  return record?.privateBytes ?? null
}

/** Failure only means that the model is measured again. */
export async function keepMemoryRecord(
  cache: CompileCache,
  key: string,
  privateBytes: number,
): Promise<void> {
  const workFolder = await makeWorkFolder(cache).catch(() => null)
  if (workFolder === null) return
  await keepRecord(recordName(key), { privateBytes }, { cache, workFolder })
  await rm(workFolder, { recursive: true, force: true })
}
