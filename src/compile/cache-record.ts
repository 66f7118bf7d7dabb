/**
 * Small JSON files beside the images of the compile cache. One that is missing or damaged only
 * costs work that was done before.
 */
import { readFile, rename, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type * as z from 'zod'
import type { CompileCache } from './cache.js'

/**
 * The first record with this name that matches the schema and passes `isCurrent`; null if there is
 * none. Marks it as used: the least recently used records are removed.
 */
export async function findRecord<Schema extends z.ZodType>(
  { folders }: Pick<CompileCache, 'folders'>,
  name: string,
  {
    schema,
    isCurrent = async () => true,
  }: {
    readonly schema: Schema
    readonly isCurrent?: (record: z.output<Schema>) => Promise<boolean>
  },
): Promise<z.output<Schema> | null> {
  for (const folder of folders) {
    const path = join(folder, name)
    try {
      const record = schema.parse(JSON.parse(await readFile(path, 'utf8')))
      if (!(await isCurrent(record))) continue
      const now = new Date()
      await utimes(path, now, now).catch(() => {})
      return record
    } catch {
      // Missing or damaged.
    }
  }
  return null
}

/** Writes a record in `workFolder`, which is always removed, and renames it once complete. */
export async function keepRecord(
  name: string,
  record: unknown,
  { cache, workFolder }: { readonly cache: CompileCache; readonly workFolder: string },
): Promise<void> {
  try {
    await writeFile(join(workFolder, name), JSON.stringify(record), { mode: 0o600 })
    await rename(join(workFolder, name), join(cache.writable, name))
  } catch {
    // A full disk or a folder that became read-only.
  }
}
