/** Limited file systems and memory, if the test may create them. */
import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, rmdirSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from './server.js'

/** A tmpfs with the given options; null if mounting is not permitted. */
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

/** Fills the remaining space with a file; returns its path. */
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
  /** A process joins by writing its pid to this file. */
  readonly procs: string
  /** Peak memory, including page cache that can be reclaimed. */
  peakBytes(): number
  /** Allows another amount from here on. */
  limit(bytes: number): void
}

/** A control group with a memory limit; null if none can be created. */
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
