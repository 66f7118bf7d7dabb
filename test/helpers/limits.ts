/** Places with less room than the machine has, where the test may make them. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync, writeSync } from 'node:fs'
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

const CGROUP_V1 = '/sys/fs/cgroup/memory'

export interface MemoryCgroup {
  /** Whoever writes its pid there joins. */
  readonly procs: string
  /** The most that was ever charged, page cache that can be dropped included. */
  peakBytes(): number
  /** Allows another amount from here on. */
  limit(bytes: number): void
}

/** A control group that allows so much memory; null where none can be made. */
export function memoryCgroup(t: ExecutionContext, limitBytes: number): MemoryCgroup | null {
  const path = join(CGROUP_V1, `onecopy-test-${process.pid}`)
  try {
    mkdirSync(path)
    t.teardown(() => rmdirSync(path))
    const limit = (bytes: number) => writeFileSync(join(path, 'memory.limit_in_bytes'), String(bytes))
    limit(limitBytes)
    return {
      limit,
      procs: join(path, 'cgroup.procs'),
      peakBytes: () => Number(readFileSync(join(path, 'memory.max_usage_in_bytes'), 'utf8')),
    }
  } catch {
    return null
  }
}
