import test from 'ava'
import { detectStall } from '../../src/engine/stall-detector.js'
import { until } from '../helpers/waiting.js'

test('a thread that does not answer has stalled, once; one that answers late has not', async (t) => {
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
  await until('it is asked again', () => pings.length === 2)
  pings[1]?.()
  await until('it is asked a third time', () => pings.length === 3)
  t.deepEqual(stalls, [])
  await until('it has stalled', () => stalls.length === 1)
  t.is(pings.length, 3)
})

test('time in which the process did not run counts for no stall', async (t) => {
  const stalls: number[] = []
  let pings = 0
  const end = detectStall({
    ping: async () => {
      pings++
    },
    stallTimeoutMs: 1200,
    onStall: (silentMs) => stalls.push(silentMs),
  })
  t.teardown(end)
  await until('it is asked twice', () => pings === 2)
  // As after a SIGSTOP: the loop stands, and so does the answer that is on its way.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000)
  await until('it is asked again', () => pings === 4)
  t.deepEqual(stalls, [])
})
