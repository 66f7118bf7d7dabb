import test from 'ava'
import { CLIENT_CELL_COUNT, ClientCounts, forgetInside } from '../../src/access/client-page.js'

const LIMIT = { requests: 10, windowMs: 1000 }

/** Counts of `count` processes that share a stats page. */
function processes(count: number): { counts: ClientCounts[]; cells: Float64Array[] } {
  const cells = Array.from({ length: count }, () => new Float64Array(CLIENT_CELL_COUNT))
  const counts = cells.map((own) => new ClientCounts({ own, all: cells, secret: 'secret' }))
  return { counts, cells }
}

function admitted(
  counts: readonly ClientCounts[],
  client: string,
  { tries = 30, nowMs = 5000 } = {},
): number {
  let admittedCount = 0
  for (let i = 0; i < tries; i++)
    if (counts[i % counts.length]?.admit(client, LIMIT, nowMs) === null) admittedCount++
  return admittedCount
}

test('a limit holds over all processes, regardless of how requests are distributed', (t) => {
  t.is(admitted(processes(1).counts, 'a'), 10)
  t.is(admitted(processes(7).counts, 'a'), 10)
  const { counts } = processes(3)
  t.is(admitted(counts.slice(0, 1), 'a', { tries: 6 }), 6)
  t.is(admitted(counts.slice(1), 'a'), 4)
  t.is(admitted(counts, 'b'), 10, 'another client has its own limit')
})

test('the window slides: any window admits at most the limit plus one, and capacity returns gradually', (t) => {
  const { counts } = processes(2)
  const times: number[] = []
  for (let nowMs = 0; nowMs < 10_000; nowMs += 10)
    if (counts[(nowMs / 10) % 2]?.admit('a', LIMIT, nowMs) === null) times.push(nowMs)
  for (const start of times) {
    const within = times.filter((time) => time >= start && time < start + LIMIT.windowMs).length
    t.true(within <= LIMIT.requests + 1, `${within} from ${start}`)
  }
  const perSecond = times.length / 10
  t.true(perSecond > 8 && perSecond <= 11, `${perSecond}`)
})

test('the returned wait is the time until the next request is admitted', (t) => {
  for (const startMs of [5000, 5300, 5999]) {
    const { counts } = processes(2)
    const [first, second] = counts as [ClientCounts, ClientCounts]
    admitted([first], 'a', { nowMs: startMs })
    const waitMs = second.admit('a', LIMIT, startMs) ?? t.fail('expected to be refused')
    t.true(waitMs > 0 && waitMs <= 2 * LIMIT.windowMs)
    t.not(second.admit('a', LIMIT, startMs + waitMs * 0.9), null)
    t.is(second.admit('a', LIMIT, startMs + waitMs + 0.001), null)
  }
})

test('two idle windows reset the counts', (t) => {
  const { counts } = processes(2)
  t.is(admitted(counts, 'a', { nowMs: 5000 }), 10)
  t.is(admitted(counts, 'a', { nowMs: 7000 }), 10)
})

test('memory does not grow with clients, and a thousand busy ones throttle few others', (t) => {
  const { counts, cells } = processes(1)
  const [only] = counts as [ClientCounts]
  for (let i = 0; i < 100_000; i++) only.admit(`old ${i}`, LIMIT, 1000)
  t.is(cells[0]?.length, CLIENT_CELL_COUNT)
  for (let i = 0; i < 1000; i++) admitted([only], `busy ${i}`, { tries: 10, nowMs: 90_000 })
  let hurt = 0
  for (let i = 0; i < 1000; i++) if (only.admit(`quiet ${i}`, LIMIT, 90_000) !== null) hurt++
  t.true(hurt < 60, `${hurt} of 1000`)
})

test('requests in flight are counted over all processes, and those of a dead process are dropped', (t) => {
  const { counts, cells } = processes(3)
  const [first, second, third] = counts as [ClientCounts, ClientCounts, ClientCounts]
  t.true(first.enter('a', 2))
  t.true(second.enter('a', 2))
  t.false(third.enter('a', 2))
  t.true(third.enter('b', 2))
  first.leave('a')
  t.true(third.enter('a', 2))
  t.false(first.enter('a', 2))
  forgetInside(cells[1] as Float64Array)
  t.true(first.enter('a', 2))
  for (const [i, client] of ['a', 'b', 'a'].entries()) (i === 0 ? first : third).leave(client)
  t.true(cells.every((own) => own.every((cell) => cell === 0)))
})
