import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { exposeModels } from '../../src/metrics/exposition.js'
import { StatsPage } from '../../src/metrics/page.js'
import { ModelRecorder } from '../../src/metrics/recorder.js'
import { MODEL_CELLS } from '../../src/metrics/series.js'
import { temporaryFolder } from '../helpers/server.js'

test('counts of one mapping are visible in another, and slots are summed', async (t) => {
  const reference = { path: join(temporaryFolder(t), 'page'), slots: 3, cellsPerSlot: 5 }
  const reader = await StatsPage.create(reference)
  const writer = await StatsPage.open(reference)
  writer.slot(0)[4] = 2
  writer.slot(2)[4] = 40
  t.is(reader.total(4), 42)
  t.is(reader.total(3), 0)
  t.is(reader.slot(1).length, 5)
  t.throws(() => reader.slot(3), { message: /from 0 to 2, got 3/ })
})

test('a page that does not match its description is rejected', async (t) => {
  const path = join(temporaryFolder(t), 'page')
  const reference = { path, slots: 2, cellsPerSlot: 8 }
  await StatsPage.create(reference)
  const whole = readFileSync(path)
  const refused = (message: RegExp, as = reference) =>
    t.throwsAsync(StatsPage.open(as), { code: 'SEGMENT_INVALID', message })
  await refused(/expected a file of/, { ...reference, slots: 3 })
  // Same size, another division into slots.
  await refused(/expected a header/, { ...reference, cellsPerSlot: 7 })
  writeFileSync(path, Buffer.concat([Buffer.alloc(8), whole.subarray(8)]))
  await refused(/expected a header/)
  truncateSync(path, 64)
  await refused(/expected a file of .* got 64/)
  await refused(/cannot be opened \(ENOENT\)/, { ...reference, path: `${path}-gone` })
})

test('buckets sum to the count, and each value is in the lowest matching bucket', async (t) => {
  const page = await StatsPage.create({
    path: join(temporaryFolder(t), 'p'),
    slots: 2,
    cellsPerSlot: MODEL_CELLS,
  })
  const first = new ModelRecorder(page.slot(0))
  const second = new ModelRecorder(page.slot(1))
  for (const rows of [1, 2, 3, 600]) first.observe('batchSize', rows)
  second.observe('batchSize', 512)
  first.countRequest('success', 2)
  second.countRequest('success', 2)
  second.countRequest('rejected', 1)
  const text = await exposeModels([{ labels: { model: 'm', version: '1' }, page }])
  const value = (series: string) =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${series} `))
        ?.split(' ')
        .at(-1),
    )
  const bucket = (le: string) => value(`onecopy_batch_size_bucket{le="${le}",model="m",version="1"}`)
  t.deepEqual(['1', '2', '4', '256', '512', '+Inf'].map(bucket), [1, 2, 3, 3, 4, 5])
  t.is(value('onecopy_batch_size_sum{model="m",version="1"}'), 1118)
  t.is(value('onecopy_batch_size_count{model="m",version="1"}'), 5)
  t.is(value('onecopy_requests_total{model="m",version="1",outcome="success"}'), 2)
  t.is(value('onecopy_requests_total{model="m",version="1",outcome="rejected"}'), 1)
  t.notRegex(text, /outcome="timeout"/, 'a series begins with its first event')
})
