import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { MODEL_CONFIG_KEYS, readModelConfig, ServedModelConfigSchema } from '../../src/repository/config.js'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const SAMPLE = JSON.stringify({ inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [[1, 2.5]] }] })

/** Writes a config with the files it names; returns its path. */
function write(
  t: ExecutionContext,
  config: unknown,
  files: Record<string, string | Uint8Array> = {},
): string {
  const folder = temporaryFolder(t)
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), content)
  }
  const path = join(folder, 'config.json')
  writeFileSync(path, typeof config === 'string' ? config : JSON.stringify(config))
  return path
}

async function refused(t: ExecutionContext, path: string, says: RegExp): Promise<void> {
  const error = await t.throwsAsync(readModelConfig(path))
  t.like(error, { code: 'REPOSITORY_INVALID' })
  t.true(error?.message.startsWith(`${path}: `), error?.message)
  t.regex(error?.message ?? '', says)
}

test('without a config every version is served, with the threads of the server and without warm-up', async (t) => {
  t.like(await readModelConfig('/no/such/config.json'), {
    versionPolicy: { kind: 'all' },
    threads: null,
    warmUp: { generatedRuns: 0, samples: [] },
    labels: {},
  })
})

test('docs/model-config.md lists the keys of the schema, in order, and its examples are valid', async (t) => {
  const text = readFileSync(join(PROJECT_ROOT, 'docs', 'model-config.md'), 'utf8')
  const rows = [...text.matchAll(/^\| `(\w+)` \| `(.*?)` \| .* \| `(.*)` \|$/gm)]
  t.deepEqual(
    rows.map(([, key]) => key),
    MODEL_CONFIG_KEYS,
  )
  const files = { 'samples/typical.json': SAMPLE, 'samples/large.json': SAMPLE, 'labels.txt': 'cat\ndog\n' }
  const defaults = await readModelConfig('/no/such/config.json')
  for (const [, key = '', byDefault = '', example = ''] of rows) {
    const config = await readModelConfig(write(t, `{"${key}": ${example}}`, files))
    t.notDeepEqual(config, defaults, `the example of ${key} changes something`)
    if (byDefault.startsWith('--')) continue
    t.deepEqual(await readModelConfig(write(t, `{"${key}": ${byDefault}}`)), defaults, `default of ${key}`)
  }
  const whole = text.match(/```json\n([\s\S]*?)```/)?.[1] ?? ''
  t.deepEqual(Object.keys(JSON.parse(whole)), MODEL_CONFIG_KEYS)
  await t.notThrowsAsync(readModelConfig(write(t, whole)))
})

test('the complete config is sent to the workers', async (t) => {
  const config = await readModelConfig(
    write(t, { threads: 3, labels: { y: ['a'] }, warm_up: ['s.json'] }, { 's.json': SAMPLE }),
  )
  t.deepEqual(config.versionPolicy, { kind: 'all' })
  t.deepEqual(ServedModelConfigSchema.parse(config), config)
})

test('the forms of a version policy', async (t) => {
  const read = async (policy: unknown) =>
    (await readModelConfig(write(t, { version_policy: policy }))).versionPolicy
  t.deepEqual(await read('all'), { kind: 'all' })
  t.deepEqual(await read({ latest: 3 }), { kind: 'latest', count: 3 })
  t.deepEqual(await read({ specific: ['1', '3'] }), { kind: 'specific', versions: ['1', '3'] })
  const bad = [
    'latest',
    1,
    null,
    {},
    { latest: 0 },
    { latest: 1.5 },
    { latest: 1, specific: ['1'] },
    { specific: [] },
  ]
  const badVersions = [{ specific: [1] }, { specific: ['01'] }, { specific: ['0'] }, { specific: ['1', '1'] }]
  for (const policy of [...bad, ...badVersions])
    await refused(t, write(t, { version_policy: policy }), /at version_policy/)
})

test('threads are a positive integer', async (t) => {
  t.is((await readModelConfig(write(t, { threads: 4 }))).threads, 4)
  for (const threads of [0, -1, 1.5, 1025, '2']) await refused(t, write(t, { threads }), /threads/)
})

test('warm-up is a number of runs, or samples with their runs in the folder of the config', async (t) => {
  const files = { 'a.json': SAMPLE, 'more/b.json': SAMPLE }
  const counted = await readModelConfig(write(t, { warm_up: 5 }))
  t.deepEqual(counted.warmUp, { generatedRuns: 5, samples: [] })
  const path = write(t, { warm_up: ['a.json', { file: 'more/b.json', runs: 3 }] }, files)
  symlinkSync(join(dirname(path), 'a.json'), join(dirname(path), 'link.json'))
  t.deepEqual((await readModelConfig(path)).warmUp, {
    generatedRuns: 0,
    samples: [
      { path: join(dirname(path), 'a.json'), runs: 1 },
      { path: join(dirname(path), 'more/b.json'), runs: 3 },
    ],
  })
  writeFileSync(path, JSON.stringify({ warm_up: ['link.json'] }))
  t.is((await readModelConfig(path)).warmUp.samples.length, 1)
  for (const warm_up of [
    -1,
    1001,
    'a.json',
    [{ file: 'a.json' }],
    [{ file: 'a.json', runs: 0 }],
    new Array(65).fill('a'),
  ])
    await refused(t, write(t, { warm_up }, files), /at warm_up/)
})

test('a sample that is invalid, missing or outside the folder is rejected by name', async (t) => {
  const noData = JSON.stringify({ inputs: [{ name: 'x', shape: [1], datatype: 'FP32' }] })
  const cases: readonly [content: string | null, says: RegExp][] = [
    [null, /warm_up: "s\.json": expected a file at .*, found none/],
    ['{', /warm_up: "s\.json": expected JSON/],
    ['{"rows": 1}', /"s\.json": expected the body of an infer request[\s\S]*inputs/],
    ['{"inputs": [{"name": "x", "shape": [-1], "datatype": "FP32", "data": []}]}', /shape/],
    [noData, /expected input "x" to have its data in JSON/],
  ]
  for (const [content, says] of cases)
    await refused(t, write(t, { warm_up: ['s.json'] }, content === null ? {} : { 's.json': content }), says)
  for (const name of ['../s.json', '/etc/hostname', 'a/../../s.json'])
    await refused(t, write(t, { warm_up: [name] }), /expected a file inside the config's folder/)
})

test('labels are listed, or read from a file with one per line', async (t) => {
  const read = async (content: string) =>
    (await readModelConfig(write(t, { labels: { y: 'l.txt', z: ['one'] } }, { 'l.txt': content }))).labels
  t.deepEqual(await read('cat\ndog\n'), { y: ['cat', 'dog'], z: ['one'] })
  for (const content of ['cat\r\ndog', 'cat\rdog\r', '\ufeffcat\ndog\r\n'])
    t.deepEqual(await read(content), { y: ['cat', 'dog'], z: ['one'] })
  const bad: readonly [content: string | Uint8Array, says: RegExp][] = [
    ['', /expected one label per line, got an empty file/],
    ['cat\n\ndog\n', /"l\.txt", line 2: expected a label, got an empty line/],
    [`cat\n${'x'.repeat(1001)}\n`, /line 2: expected at most 1000 characters/],
    ['x\n'.repeat(100_001), /line 100001: expected at most 100000 labels/],
    [Buffer.from('cat\n', 'utf16le'), /"l\.txt", line 1: expected text in UTF-8, got a NUL/],
    [Uint8Array.of(0xff, 0x0a), /"l\.txt": .*not valid/],
  ]
  for (const [content, says] of bad)
    await refused(t, write(t, { labels: { y: 'l.txt' } }, { 'l.txt': content }), says)
  for (const list of [[], [''], ['two\nlines'], [1], 1])
    await refused(t, write(t, { labels: { y: list } }), /labels/)
})

test('any single-line labels are preserved, listed or from a file', async (t) => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'config.json')
  const label = fc
    .string({ minLength: 1, maxLength: 40, unit: 'grapheme' })
    .filter((text) => !/[\r\n]/.test(text))
  await fc.assert(
    fc.asyncProperty(fc.array(label, { minLength: 1, maxLength: 20 }), async (labels) => {
      // A byte-order mark at the start of a file is not part of its text.
      fc.pre(!labels[0]?.startsWith('\ufeff'))
      writeFileSync(join(folder, 'l.txt'), `${labels.join('\n')}\n`)
      writeFileSync(path, JSON.stringify({ labels: { listed: labels, read: 'l.txt' } }))
      t.deepEqual((await readModelConfig(path)).labels, { listed: labels, read: labels })
    }),
    { numRuns: 50 },
  )
})

test('files above the size limit are not read, and pipes do not block', async (t) => {
  const sample = write(t, { warm_up: ['s.json'] }, { 's.json': '' })
  truncateSync(join(dirname(sample), 's.json'), 8 * 1024 * 1024 + 1)
  await refused(t, sample, /expected at most 8\.4 MB, got 8\.4 MB/)
  const labels = write(t, { labels: { y: 'l.txt' } }, { 'l.txt': '' })
  truncateSync(join(dirname(labels), 'l.txt'), 4 * 1024 * 1024 + 1)
  await refused(t, labels, /expected at most 4\.2 MB/)
  const config = write(t, '{}')
  truncateSync(config, 1024 * 1024 + 1)
  await refused(t, config, /expected at most 1\.0 MB/)
  const pipe = write(t, { labels: { y: 'pipe' } })
  execFileSync('mkfifo', [join(dirname(pipe), 'pipe')])
  await refused(t, pipe, /"pipe": expected a regular file/)
})

test('unknown keys are rejected', async (t) => {
  await refused(t, write(t, { instances: 1 }), /Unrecognized key: "instances"/)
  await refused(t, write(t, { version_polcy: 'all' }), /version_polcy/)
})
