/**
 * File locks that the kernel releases when the process ends, for whatever reason. Unlike a pid, a lock has
 * the same meaning in every container that sees the file. Children do not inherit it, because Node opens
 * files close-on-exec. Source: flock(2).
 */
import { createRequire } from 'node:module'

const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4

type Flock = (fd: number, operation: number) => number

const require = createRequire(import.meta.url)
let loaded: Flock | null | undefined

/** Null if libc is unavailable; callers then work without locks. */
function flock(): Flock | null {
  if (loaded !== undefined) return loaded
  try {
    const koffi = require('koffi') as typeof import('koffi')
    loaded = koffi.load(null).func('int flock(int fd, int operation)') as Flock
  } catch {
    loaded = null
  }
  return loaded
}

/** Whether locks are available. Without them a file in use cannot be detected. */
export function canLock(): boolean {
  return flock() !== null
}

/**
 * Takes an exclusive lock on an open file until it is closed or this process ends. Blocks only while another
 * process checks the lock.
 */
export function holdLock(fd: number): void {
  flock()?.(fd, LOCK_EX)
}

/** Whether another process holds the lock of an open file. */
export function isLockHeld(fd: number): boolean {
  const call = flock()
  return call !== null && call(fd, LOCK_SH | LOCK_NB) !== 0
}

/**
 * Tries to take an exclusive lock on an open file until it is closed; false if other processes hold the lock.
 */
export function tryHoldLock(fd: number): boolean {
  return (flock()?.(fd, LOCK_EX | LOCK_NB) ?? 0) === 0
}

/**
 * Tries to take a shared lock on an open file until it is closed; false if another process holds it
 * exclusively.
 */
export function tryShareLock(fd: number): boolean {
  return (flock()?.(fd, LOCK_SH | LOCK_NB) ?? 0) === 0
}
