/**
 * Digests that need not be made again: the compile cache remembers the digest of a model's files by what the file system
 * says of them, as git's index does. Reading a large model takes as long as loading it. The time of the last change
 * is the kernel's: nobody can set it back.
 */
import { createHash } from 'node:crypto'
import { readFile, rename, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import type { CompileCache } from './cache.js'

/** A change so soon after the one before may leave the same time: coarse file systems count in seconds. */
const SETTLED_AFTER_MS = 2000
const NS_PER_MS = 1_000_000n

const FileSchema = z.strictObject({
  /** Below the model's folder. */
  name: z.string(),
  bytes: z.int().nonnegative(),
  inode: z.string(),
  /** In nanoseconds since 1970. */
  modifiedNs: z.string(),
  changedNs: z.string(),
})
export type FileFacts = z.infer<typeof FileSchema>

export const KnownFilesSchema = z.strictObject({
  files: z.array(FileSchema).min(1),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
})
export type KnownFiles = z.infer<typeof KnownFilesSchema>

/** What the file system says of files in `folder`. @throws where one is not there. */
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

/** Whether facts that were read before and after the files were read stand for what was read. */
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

/** The digest of the model at `modelPath`; null where it has to be made. */
export async function findKnownDigest({ folders }: CompileCache, modelPath: string): Promise<string | null> {
  for (const folder of folders) {
    try {
      const text = await readFile(join(folder, recordName(modelPath)), 'utf8')
      const { files, digest } = KnownFilesSchema.parse(JSON.parse(text))
      const names = files.map(({ name }) => name)
      if (!isDeepStrictEqual(files, await factsOf(dirname(modelPath), names))) continue
      const now = new Date()
      // Those that nobody uses are removed at some time.
      await utimes(join(folder, recordName(modelPath)), now, now).catch(() => {})
      return digest
    } catch {
      // Never remembered, damaged, or a file is gone: the digest is made.
    }
  }
  return null
}

/**
 * Remembers a digest. The record is written in `workFolder`, which is removed whatever happens, and gets its name when it is
 * whole. A cache that cannot keep it makes the next start slower, nothing else.
 */
export async function rememberDigest(
  modelPath: string,
  known: KnownFiles,
  { cache, workFolder }: { readonly cache: CompileCache; readonly workFolder: string },
): Promise<void> {
  const name = recordName(modelPath)
  try {
    await writeFile(join(workFolder, name), JSON.stringify(known), { mode: 0o600 })
    await rename(join(workFolder, name), join(cache.writable, name))
  } catch {
    // Read again at the next start.
  }
}
