/**
 * Caches digests of model files. The compile cache stores a digest together with the file's
 * metadata, as git's index does, because reading a large model takes as long as loading it. The
 * ctime is set by the kernel, so no user can set it back.
 */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import * as z from 'zod'
import type { CompileCache } from './cache.js'
import { findRecord, keepRecord } from './cache-record.js'

/**
 * Two changes within this time may have the same timestamp: coarse file systems count in seconds.
 */
const SETTLED_AFTER_MS = 2000
const NS_PER_MS = 1_000_000n

const FileSchema = z.strictObject({
  /** Relative to the model's folder. */
  name: z.string(),
  bytes: z.int().nonnegative(),
  inode: z.string(),
  /** Nanoseconds since 1970. */
  modifiedNs: z.string(),
  changedNs: z.string(),
})
export type FileFacts = z.infer<typeof FileSchema>

export const KnownFilesSchema = z.strictObject({
  files: z.array(FileSchema).min(1),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
})
export type KnownFiles = z.infer<typeof KnownFilesSchema>

/** Metadata of files in `folder`. @throws If one is missing. */
export async function factsOf(folder: string, names: readonly string[]): Promise<FileFacts[]> {
  return await Promise.all(
    names.map(async (name) => {
      const { size, ino, mtimeNs, ctimeNs } = await stat(join(folder, name), { bigint: true })
      return {
        ...{ name, bytes: Number(size), inode: String(ino) },
        ...{ modifiedNs: String(mtimeNs), changedNs: String(ctimeNs) },
      }
    }),
  )
}

/**
 * Whether metadata from before and after reading proves that the files did not change meanwhile.
 */
export function areSettled(before: readonly FileFacts[], after: readonly FileFacts[]): boolean {
  const latestMs = Date.now() - SETTLED_AFTER_MS
  return (
    isDeepStrictEqual(before, after) &&
    before.every(({ changedNs }) => Number(BigInt(changedNs) / NS_PER_MS) < latestMs)
  )
}

function recordName(modelPath: string): string {
  return `${createHash('sha256').update(resolve(modelPath)).digest('hex')}.files.json`
}

/** The stored digest of the model at `modelPath`; null if it must be calculated. */
export async function findKnownDigest(
  cache: Pick<CompileCache, 'folders'>,
  modelPath: string,
): Promise<string | null> {
  const known = await findRecord(cache, recordName(modelPath), {
    schema: KnownFilesSchema,
    isCurrent: async ({ files }) => {
      const names = files.map(({ name }) => name)
      return isDeepStrictEqual(files, await factsOf(dirname(modelPath), names))
    },
  })
  return known?.digest ?? null
}

/** Stores a digest. Failure only makes the next start slower. */
export async function rememberDigest(
  modelPath: string,
  known: KnownFiles,
  place: { readonly cache: CompileCache; readonly workFolder: string },
): Promise<void> {
  await keepRecord(recordName(modelPath), known, place)
}
