/**
 * One full collection after a process has loaded its code. Importing modules fills V8's young generation with
 * objects that survive, so it grows to its limit, and V8 keeps it that large until a process has been idle
 * for long. A collection through the inspector's protocol, unlike `gc()`, also shrinks it: 10 MB in each
 * process.
 */
import { returnFreePages } from '../mapping.js'

/** The pause grows with the heap: about 60 ms for 20 MB. A process that holds more has work of its own. */
const MAX_HEAP_BYTES = 64 * 1024 * 1024

export async function collectStartupGarbage(): Promise<void> {
  if (process.memoryUsage().heapUsed > MAX_HEAP_BYTES) return
  try {
    const { Session } = await import('node:inspector/promises')
    const session = new Session()
    session.connect()
    await session.post('HeapProfiler.collectGarbage')
    session.disconnect()
  } catch {
    // A Node.js without the inspector keeps the memory.
  }
  // Of what JavaScript held outside of its heap.
  returnFreePages()
}
