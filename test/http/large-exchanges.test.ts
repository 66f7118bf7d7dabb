import { EventEmitter } from 'node:events'
import test from 'ava'
import { LargeExchanges } from '../../src/http/large-exchanges.js'
import { until } from '../helpers/waiting.js'

test.serial('memory is collected after large exchanges, and not after small ones', async (t) => {
  const original = globalThis.gc
  t.teardown(() => {
    globalThis.gc = original
  })
  let collections = 0
  globalThis.gc = (() => {
    collections++
  }) as unknown as typeof gc
  const exchanges = new LargeExchanges()
  const exchange = (heldBytes: number) => {
    const res = new EventEmitter()
    exchanges.follow({ res, state: { heldBytes } } as unknown as Parameters<LargeExchanges['follow']>[0])
    return res
  }
  for (let i = 0; i < 1000; i++) t.is(exchange(1000).listenerCount('close'), 0)
  const [first, second] = [exchange(10e6), exchange(10e6)]
  first.emit('close')
  t.is(collections, 0)
  second.emit('close')
  await until('two collections', () => collections === 2)
})
