import test from 'ava'
import { detectStall } from '../../src/engine/stall-detector.js'
import { until } from '../helpers/waiting.js'

test('a thread that does not answer has stalled, reported once; a late answer is no stall', async (t) => {
  const stalls: number[] = []
  const pings: (() => void)[] = []
  const end = detectStall({
    ping: () => new Promise((resolve) => pings.push(resolve)),
    stallTimeoutMs: 700,
    onStall: (silentMs) => stalls.push(silentMs),
  })
  t.teardown(end)
  t.is(pings.length, 1)
  pings[0]?.()
  await until('the second ping', () => pings.length === 2)
  pings[1]?.()
  await until('the third ping', () => pings.length === 3)
  t.deepEqual(stalls, [])
  await until('a stall', () => stalls.length === 1)
  t.is(pings.length, 3)
})

test('time in which the process was suspended does not count as a stall', async (t) => {
  const stalls: number[] = []
  const pings: (() => void)[] = []
  const end = detectStall({
    ping: () => new Promise((resolve) => pings.push(resolve)),
    stallTimeoutMs: 1200,
    onStall: (silentMs) => stalls.push(silentMs),
  })
  t.teardown(end)
  pings[0]?.()
  await until('the second ping', () => pings.length === 2)
  // As after a SIGSTOP: the event loop is suspended, and so is the thread that would answer the ping.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
  // The next check runs before the answer is read.
  await new Promise(setImmediate)
  pings[1]?.()
  await until('the third ping', () => pings.length === 3)
  t.deepEqual(stalls, [])
})
