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
  let pings = 0
  const end = detectStall({
    ping: async () => {
      pings++
      if (pings !== 2) return
      // As after a SIGSTOP: the event loop is suspended for 3 s, with a ping in flight.
      setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000))
      // Answered after the next check, which was due during the suspension.
      await new Promise((resolve) => setTimeout(resolve, 700))
    },
    stallTimeoutMs: 1200,
    onStall: (silentMs) => stalls.push(silentMs),
  })
  t.teardown(end)
  await until('a third ping or a stall', () => pings === 3 || stalls.length > 0)
  t.deepEqual(stalls, [])
})
