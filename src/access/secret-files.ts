/**
 * Reads and watches files with keys and certificates. Orchestrators renew secrets by changing a symbolic
 * link: `tls.crt` keeps pointing to `..data/tls.crt`, and `..data` is changed. File system notifications miss
 * that, and network mounts send none, so Node's polling watcher is used. Each poll follows the links.
 */
import { unwatchFile, watchFile } from 'node:fs'
import { constants, open } from 'node:fs/promises'
import { messageOf, OnecopyError } from '../errors.js'

/** Ten times the size of thousands of keys or of a long certificate chain. */
const MAX_FILE_BYTES = 1024 * 1024
const POLL_INTERVAL_MS = 500
/** Certificate and key are two files. Both are complete when neither has changed for this long. */
const SETTLED_MS = 300
const GROUP_OR_OTHERS_WRITE = 0o022

/**
 * Reads a file; `option` names it in errors.
 * @throws OnecopyError CONFIG_INVALID if it is unreadable, not a regular file, too large, or writable by
 *   users other than its owner.
 */
export async function readSecretFile(path: string, option: string): Promise<string> {
  const refuse = (why: string, cause?: unknown) =>
    new OnecopyError('CONFIG_INVALID', `${option}: ${why}`, { cause })
  try {
    // Opening a pipe would otherwise block until a writer appears.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const stat = await file.stat()
      if (!stat.isFile()) throw refuse(`expected a regular file at ${path}`)
      if (stat.size > MAX_FILE_BYTES)
        throw refuse(`expected at most ${MAX_FILE_BYTES} bytes at ${path}, got ${stat.size}`)
      if ((stat.mode & GROUP_OR_OTHERS_WRITE) !== 0) {
        const mode = (stat.mode & 0o777).toString(8).padStart(4, '0')
        throw refuse(`expected ${path} to be writable only by its owner (chmod go-w), got mode ${mode}`)
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

/**
 * Calls `onChange` when files have changed and then stayed the same for SETTLED_MS. Returns a function that
 * stops watching.
 */
export function watchSecretFiles(paths: readonly string[], onChange: () => void): () => void {
  let timer: NodeJS.Timeout | undefined
  const onPoll = () => {
    clearTimeout(timer)
    timer = setTimeout(onChange, SETTLED_MS)
  }
  for (const path of paths) watchFile(path, { interval: POLL_INTERVAL_MS, persistent: false }, onPoll)
  return () => {
    clearTimeout(timer)
    for (const path of paths) unwatchFile(path, onPoll)
  }
}
