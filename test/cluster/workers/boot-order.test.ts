import test from 'ava'
import { startInOrder } from '../../../cluster/workers/boot-order.js'

/** Starts that the test completes, by item. */
class Starts {
  readonly begun: number[] = []
  readonly #ends = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()

  start = (item: number): Promise<void> => {
    this.begun.push(item)
    return new Promise((resolve, reject) => {
      this.#ends.set(item, { resolve, reject })
    })
  }

  async end(item: number): Promise<void> {
    this.#ends.get(item)?.resolve()
    await settle()
  }

  async fail(item: number): Promise<void> {
    this.#ends.get(item)?.reject(new Error(`item ${item}`))
    await settle()
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

test('half as many start until the first is ready, then as many as are allowed', async (t) => {
  const starts = new Starts()
  const all = startInOrder([1, 2, 3, 4, 5, 6, 7], 4, starts.start)
  await settle()
  t.deepEqual(starts.begun, [1, 2])
  await starts.end(2)
  t.deepEqual(starts.begun, [1, 2, 3, 4, 5])
  await starts.end(1)
  t.deepEqual(starts.begun, [1, 2, 3, 4, 5, 6])
  for (const item of [3, 4, 5, 6, 7]) await starts.end(item)
  await all
  t.deepEqual(starts.begun, [1, 2, 3, 4, 5, 6, 7])
})

test('with one at a time, each starts after the one before it', async (t) => {
  const starts = new Starts()
  const all = startInOrder([1, 2], 1, starts.start)
  await settle()
  t.deepEqual(starts.begun, [1])
  await starts.end(1)
  t.deepEqual(starts.begun, [1, 2])
  await starts.end(2)
  await all
})

test('the first failure fails all, and nothing waits for the others', async (t) => {
  const starts = new Starts()
  const all = startInOrder([1, 2, 3], 2, starts.start)
  await settle()
  await starts.fail(1)
  await t.throwsAsync(all, { message: 'item 1' })
  t.deepEqual(starts.begun, [1])
})
