/** File systems in memory that are small, and that are filled by somebody else. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from './server.js'

/** A tmpfs with options of its own; null where mounting is not allowed. */
export function smallTmpfs(t: ExecutionContext, options: string): string | null {
  const path = temporaryFolder(t)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `${options},mode=0700`, 'tmpfs', path], { stdio: 'ignore' })
  } catch {
    return null
  }
  t.teardown(() => execFileSync('umount', ['--lazy', path]))
  return path
}

/** Takes all the room that is left, in a file of its own; returns the file. */
export function fillUp(folder: string): string {
  const path = join(folder, 'filler')
  const file = openSync(path, 'w')
  try {
    for (;;) writeSync(file, Buffer.alloc(1024 * 1024))
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown
  } finally {
    closeSync(file)
  }
  return path
}
