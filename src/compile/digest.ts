/** The digest of a model: its file and the external data it refers to. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { OnecopyError } from '../errors.js'

/**
 * SHA-256 over the model's bytes and, for each external file in order, its name, size and bytes.
 * @throws OnecopyError MODEL_INVALID if an external file is missing or outside the model's folder.
 */
export async function digestModel(options: {
  readonly bytes: Uint8Array
  readonly folder: string
  readonly externalFiles: readonly string[]
}): Promise<string> {
  const hash = createHash('sha256').update(options.bytes)
  for (const name of options.externalFiles) {
    const relative = normalize(name)
    if (isAbsolute(relative) || relative === '..' || relative.startsWith('../')) {
      throw new OnecopyError(
        'MODEL_INVALID',
        `external data ${JSON.stringify(name)}: expected a file inside the model's folder`,
      )
    }
    const path = join(options.folder, relative)
    const found = await stat(path).catch(() => null)
    if (!found?.isFile()) {
      throw new OnecopyError(
        'MODEL_INVALID',
        `external data ${JSON.stringify(name)}: expected a file at ${path}, found none`,
      )
    }
    hash.update(`\n${name}\n${found.size}\n`)
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), async (chunks) => {
      for await (const chunk of chunks) hash.update(chunk as Buffer)
    })
  }
  return hash.digest('hex')
}
