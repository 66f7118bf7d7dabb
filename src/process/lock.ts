/**
 * A lock on a file that the kernel holds for a process until it ends, however it ends. Unlike a pid it means
 * the same in every container that sees the file. Source: flock(2). Children do not inherit it: Node opens files close-on-exec.
 */
import { createRequire } from 'node:module'

const LOCK_SH = 1
const LOCK_EX = 2
const LOCK_NB = 4

type Flock = (fd: number, operation: number) => number

const require = createRequire(import.meta.url)
let loaded: Flock | null | undefined

/** Null where libc cannot be reached: callers then go by what they know without locks. */
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

/** Whether locks can be had at all: without them nothing tells whether a file is in use. */
export function canLock(): boolean {
  return flock() !== null
}

/** Takes the lock of an open file until it is closed or this process ends; waits only for those who ask whether it is held. */
export function holdLock(fd: number): void {
  flock()?.(fd, LOCK_EX)
}

/** Whether another process holds the lock of an open file. */
export function isLockHeld(fd: number): boolean {
  const call = flock()
  return call !== null && call(fd, LOCK_SH | LOCK_NB) !== 0
}

/** Takes the lock of an open file for one alone, until it is closed; false where others hold it. */
export function tryHoldLock(fd: number): boolean {
  return (flock()?.(fd, LOCK_EX | LOCK_NB) ?? 0) === 0
}

/** Takes the lock of an open file together with others who do, until it is closed; false where one holds it alone. */
export function tryShareLock(fd: number): boolean {
  return (flock()?.(fd, LOCK_SH | LOCK_NB) ?? 0) === 0
}
