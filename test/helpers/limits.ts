/** Limited file systems and memory, if the test may create them. */
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext, type Implementation } from 'ava'
import { temporaryFolder } from './server.js'

const CGROUP_V1 = '/sys/fs/cgroup/memory'

function succeeds(attempt: () => void): boolean {
  try {
    attempt()
    return true
  } catch {
    return false
  }
}

function canMount(): boolean {
  const path = mkdtempSync(join(tmpdir(), 'onecopy-mount-'))
  const isMounted = succeeds(() => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', path], { stdio: 'ignore' })
    execFileSync('umount', ['--lazy', path])
  })
  rmdirSync(path)
  return isMounted
}

function canLimitMemory(): boolean {
  const path = join(CGROUP_V1, `onecopy-probe-${process.pid}`)
  return succeeds(() => {
    mkdirSync(path)
    rmdirSync(path)
  })
}

const PROBES = {
  tmpfs: { isThere: canMount, otherwise: 'mounting a tmpfs needs root' },
  'memory limit': { isThere: canLimitMemory, otherwise: 'cannot create a control group with a memory limit' },
} as const
export type Limit = keyof typeof PROBES

/** A test that needs such limits; skipped where it cannot create them. */
export function testWithLimits(
  title: string,
  limits: readonly Limit[],
  implementation: (t: ExecutionContext) => void | Promise<void>,
): void {
  const missing = limits.filter((limit) => !PROBES[limit].isThere()).map((limit) => PROBES[limit].otherwise)
  const run = implementation as Implementation<[]>
  if (missing.length === 0) test.serial(title, run)
  else test.serial.skip(`${title} (skipped: ${missing.join(', ')})`, run)
}

/** A tmpfs with the given options. */
export function smallTmpfs(t: ExecutionContext, options: string): string {
  const path = temporaryFolder(t)
  execFileSync('mount', ['-t', 'tmpfs', '-o', `${options},mode=0700`, 'tmpfs', path], { stdio: 'ignore' })
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

export interface MemoryCgroup {
  /** A process joins by writing its pid to this file. */
  readonly procs: string
  /** Peak memory, including page cache that can be reclaimed. */
  peakBytes(): number
  /** Allows another amount from here on. */
  limit(bytes: number): void
}

/** A control group with a memory limit. */
export function memoryCgroup(t: ExecutionContext, limitBytes: number): MemoryCgroup {
  const path = join(CGROUP_V1, `onecopy-test-${process.pid}`)
  mkdirSync(path)
  t.teardown(() => rmdirSync(path))
  const limit = (bytes: number) => writeFileSync(join(path, 'memory.limit_in_bytes'), String(bytes))
  limit(limitBytes)
  return {
    limit,
    procs: join(path, 'cgroup.procs'),
    peakBytes: () => Number(readFileSync(join(path, 'memory.max_usage_in_bytes'), 'utf8')),
  }
}
