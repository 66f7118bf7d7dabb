import test from 'ava'
import { cgroupMemoryLimit } from '../../src/process/memory.js'
import type { Sharing } from '../../src/segment/layout.js'
import { MemoryBudget } from '../../src/sharing/memory-budget.js'

function files(contents: Record<string, string>) {
  return (path: string) => contents[path] ?? null
}

test('the smallest memory limit of the control group and its ancestors applies', (t) => {
  const v2 = files({
    '/proc/self/cgroup': '0::/pod/container\n',
    '/sys/fs/cgroup/pod/container/memory.max': 'max\n',
    '/sys/fs/cgroup/pod/memory.max': '1000000\n',
  })
  t.is(cgroupMemoryLimit(v2), 1_000_000)
  const v1 = files({
    '/proc/self/cgroup': '5:memory:/x\n4:cpu:/y\n',
    '/sys/fs/cgroup/memory/x/memory.limit_in_bytes': '2000000\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
  })
  t.is(cgroupMemoryLimit(v1), 2_000_000)
  t.is(cgroupMemoryLimit(files({ '/proc/self/cgroup': '0::/\n' })), null)
})

const SHARING: Sharing = {
  state: 'shared',
  weightsBytes: 0,
  sharedRawBytes: 0,
  sharedPackedBytes: 0,
  privatelyPackedBytes: 10e6,
  unshareableBytes: 0,
  notes: [],
}

test('the budget is the sum of all models, each counted once', (t) => {
  const budget = new MemoryBudget({ limitBytes: 500e6, workers: 2 })
  const model = { fileBytes: 100e6, sharing: SHARING, privateBytes: null }
  budget.reserve('a', model)
  budget.reserve('a', model)
  budget.reserve('b', model)
  // 60 + 300 + 2 * 90 MB.
  t.throws(() => budget.reserve('c', model), {
    code: 'MEMORY_LIMIT',
    message: /at least 540\.0 MB \(segments 300\.0 MB, 2 workers of 90\.0 MB/,
  })
  budget.reserve('small', { ...model, fileBytes: 1e6 })
  new MemoryBudget({ limitBytes: null, workers: 1000 }).reserve('a', model)
})

test('measured requirements replace the lower bound, and released models no longer count', (t) => {
  const budget = new MemoryBudget({ limitBytes: 400e6, workers: 2 })
  const of = (privateBytes: number | null) => ({
    fileBytes: 100e6,
    sharing: SHARING,
    privateBytes,
  })
  budget.reserve('m@1', of(5e6))
  // 60 + 200 + 2 * 75 MB: both generations count during a swap.
  const next = of(10e6)
  t.throws(() => budget.reserve('m@1+2', next), {
    code: 'MEMORY_LIMIT',
    message:
      /at least 410\.0 MB \(segments 200\.0 MB, 2 workers of 75\.0 MB, .*this model 100\.0 MB and 10\.0 MB in each worker, measured, in addition to 100\.0 MB of other segments\)/,
  })
  budget.release('m@1')
  budget.reserve('m@1+2', next)
  budget.reserve('m@1+2', of(0))
})

test('memory of workers besides models counts in each worker', (t) => {
  const budget = new MemoryBudget({ limitBytes: 400e6, workers: 2 })
  budget.reserveInWorkers(85e6)
  // 60 + 100 + 2 * (60 + 85 + 10) MB.
  t.throws(
    () =>
      budget.reserve('m@1', {
        fileBytes: 100e6,
        sharing: SHARING,
        privateBytes: 10e6,
      }),
    { code: 'MEMORY_LIMIT', message: /at least 470\.0 MB \(segments 100\.0 MB, 2 workers of 155\.0 MB/ },
  )
})

test('there is room for a model without a measurement if its upper bound fits in every worker', (t) => {
  const sharing = { ...SHARING, weightsBytes: 100e6 }
  // 60 + 100 + 2 * (60 + 10 + 3 * 100 + 134.2) MB.
  const model = { fileBytes: 100e6, sharing }
  t.false(new MemoryBudget({ limitBytes: 1168e6, workers: 2 }).hasRoomFor('m@1', model))
  const budget = new MemoryBudget({ limitBytes: 1169e6, workers: 2 })
  t.true(budget.hasRoomFor('m@1', model))
  budget.reserve('other', { ...model, fileBytes: 1e6, privateBytes: 1e6 })
  t.false(budget.hasRoomFor('m@1', model))
  budget.reserve('m@1', { ...model, fileBytes: 1e6, privateBytes: 1e6 })
  budget.release('other')
  t.true(budget.hasRoomFor('m@1', model))
  t.true(new MemoryBudget({ limitBytes: null, workers: 1000 }).hasRoomFor('m@1', model))
})

test('workers start during a compilation if memory suffices for both', (t) => {
  // 60 + 2 * 60 + 5 * 100 MB.
  t.true(new MemoryBudget({ limitBytes: 680e6, workers: 2 }).hasRoomToCompile(100e6, 1))
  t.false(new MemoryBudget({ limitBytes: 679e6, workers: 2 }).hasRoomToCompile(100e6, 1))
  t.false(
    new MemoryBudget({ limitBytes: 10e9, workers: 2 }).hasRoomToCompile(100e6, 2),
    'the other is unknown',
  )
  t.true(new MemoryBudget({ limitBytes: null, workers: 2 }).hasRoomToCompile(100e9, 2))
})
