/**
 * Files with keys and certificates: read with suspicion, and looked at again and again. What stands behind the path is
 * followed through symbolic links at every look, because that is how orchestrators renew: `tls.crt` stays a link to
 * `..data/tls.crt`, and `..data` is pointed elsewhere. Notifications of the file system miss that, and network
 * mounts have none, so Node's polling watcher is used.
 */
import { unwatchFile, watchFile } from 'node:fs'
import { constants, open } from 'node:fs/promises'
import { messageOf, OnecopyError } from '../errors.js'

/** Thousands of keys or a long chain take a tenth of it. */
const MAX_FILE_BYTES = 1024 * 1024
const LOOK_INTERVAL_MS = 500
/** Certificate and key are two files: both are there when neither has changed for this long. */
const SETTLED_MS = 300
const GROUP_OR_OTHERS_WRITE = 0o022

/**
 * The text of a file. `option` names it in errors.
 * @throws OnecopyError CONFIG_INVALID when it cannot be read, is no regular file, is too large, or when others than
 *   its owner may write to it.
 */
export async function readSecretFile(path: string, option: string): Promise<string> {
  const refuse = (why: string, cause?: unknown) =>
    new OnecopyError('CONFIG_INVALID', `${option}: ${why}`, { cause })
  try {
    // Non-blocking: opening a pipe would wait for a writer.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const stat = await file.stat()
      if (!stat.isFile()) throw refuse(`expected a regular file at ${path}`)
      if (stat.size > MAX_FILE_BYTES)
        throw refuse(`expected at most ${MAX_FILE_BYTES} bytes at ${path}, got ${stat.size}`)
      if ((stat.mode & GROUP_OR_OTHERS_WRITE) !== 0) {
        const mode = (stat.mode & 0o777).toString(8).padStart(4, '0')
        throw refuse(`expected that only its owner may write to ${path} (chmod go-w), got mode ${mode}`)
      }
      return await file.readFile('utf8')
    } finally {
      await file.close()
    }
  } catch (thrown) {
    if (thrown instanceof OnecopyError) throw thrown
    const { code } = thrown as NodeJS.ErrnoException
    throw refuse(`cannot read ${path} (${code ?? messageOf(thrown)})`, thrown)
  }
}

/** Calls `onChange` once some of the files are others than before and have settled; returns what ends it. */
export function watchSecretFiles(paths: readonly string[], onChange: () => void): () => void {
  let timer: NodeJS.Timeout | undefined
  const onLook = () => {
    clearTimeout(timer)
    timer = setTimeout(onChange, SETTLED_MS)
  }
  for (const path of paths) watchFile(path, { interval: LOOK_INTERVAL_MS, persistent: false }, onLook)
  return () => {
    clearTimeout(timer)
    for (const path of paths) unwatchFile(path, onLook)
  }
}
