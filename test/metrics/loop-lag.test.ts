import test from 'ava'
import { LoopLag } from '../../src/metrics/loop-lag.js'
import { until } from '../helpers/waiting.js'

const INTERVAL_MS = 50

/** Measures several times a second, as a process does. */
function measured(end: (stop: () => void) => void) {
  const lag = new LoopLag()
  const seen = { lags: 0, lastMs: 0 }
  const timer = setInterval(() => {
    seen.lastMs = lag.measure()
    if (seen.lastMs >= 60) seen.lags++
  }, INTERVAL_MS)
  end(() => {
    clearInterval(timer)
    lag.close()
  })
  return seen
}

function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

test('an event loop that is blocked often reports lag, and no lag afterwards', async (t) => {
  const seen = measured((stop) => t.teardown(stop))
  const busy = setInterval(() => block(100), 120)
  t.teardown(() => clearInterval(busy))
  // A single block is not enough.
  await until('ten measurements of lag', () => seen.lags > 10)
  clearInterval(busy)
  await until('the lag to have passed', () => seen.lastMs < 60)
  t.pass()
})
