import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { type RepositoryScan, scanRepository } from '../../src/repository/repository.js'
import { writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const BYTES = new Uint8Array(1)
const NOBODY = 65534
const isRoot = process.getuid?.() === 0

/** `NAME/VERSION`, `NAME/` for a whole entry. */
type Problem = readonly [entry: string, says: RegExp]

interface BadEntry {
  readonly title: string
  readonly write: (dir: string) => void | Promise<void>
  readonly problems: readonly Problem[]
  /** Models that are served nevertheless. */
  readonly sources?: readonly string[]
}

function fifo(path: string): void {
  spawnSync('mkfifo', [path], { stdio: 'inherit' })
}

function file(dir: string, parts: readonly string[], content: string | Uint8Array = BYTES): void {
  const path = join(dir, ...parts)
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, content)
}

function config(dir: string, value: unknown): void {
  writeModel(dir, 'm', BYTES)
  writeModel(dir, 'm', BYTES, '2')
  file(dir, ['m', 'config.json'], typeof value === 'string' ? value : JSON.stringify(value))
}

/** The same reason for both versions of a model. */
function bothVersions(says: RegExp): Problem[] {
  return [
    ['m/2', says],
    ['m/1', says],
  ]
}

const BAD: readonly BadEntry[] = [
  {
    title: 'a version folder without a model, beside good versions',
    write: (dir) => {
      writeModel(dir, 'm', BYTES)
      writeModel(dir, 'm', BYTES, '3')
      mkdirSync(join(dir, 'm', '2'))
    },
    problems: [['m/2', /m\/2: expected a file model\.onnx in a version folder, found none$/]],
    sources: ['m/3', 'm/1'],
  },
  {
    title: 'a folder where the model file is expected',
    write: (dir) => void mkdirSync(join(dir, 'm', '1', 'model.onnx'), { recursive: true }),
    problems: [['m/1', /found a folder$/]],
  },
  {
    title: 'a named pipe as model file',
    write: (dir) => {
      mkdirSync(join(dir, 'm', '1'), { recursive: true })
      fifo(join(dir, 'm', '1', 'model.onnx'))
    },
    problems: [['m/1', /found a named pipe$/]],
  },
  {
    title: 'a named pipe at the top',
    write: (dir) => fifo(join(dir, 'm.onnx')),
    problems: [['m/', /m\.onnx: expected a model file, found a named pipe$/]],
  },
  {
    title: 'a link to a device',
    write: (dir) => symlinkSync('/dev/zero', join(dir, 'm.onnx')),
    problems: [['m/', /found a device$/]],
  },
  {
    title: 'broken links as a file, a model, a version and a model file',
    write: (dir) => {
      symlinkSync('/no/such', join(dir, 'f.onnx'))
      symlinkSync('/no/such', join(dir, 'm'))
      writeModel(dir, 'v', BYTES)
      symlinkSync('/no/such', join(dir, 'v', '2'))
      mkdirSync(join(dir, 'w', '1'), { recursive: true })
      symlinkSync('/no/such', join(dir, 'w', '1', 'model.onnx'))
    },
    problems: [
      ['f/', /found a broken link to \/no\/such$/],
      ['m/', /found a broken link to \/no\/such$/],
      ['v/2', /expected a version folder, found a broken link/],
      ['w/1', /expected a file model\.onnx in a version folder, found a broken link/],
    ],
    sources: ['v/1'],
  },
  {
    title: 'a loop of links',
    write: (dir) => {
      symlinkSync('m', join(dir, 'm'))
      writeModel(dir, 'v', BYTES)
      symlinkSync('2', join(dir, 'v', '2'))
    },
    problems: [
      ['m/', /ELOOP/],
      ['v/2', /ELOOP/],
    ],
    sources: ['v/1'],
  },
  {
    title: 'a name with a space, a tilde, other letters, or too long',
    write: (dir) => {
      writeModel(dir, 'my model', BYTES)
      writeModel(dir, 'copy~', BYTES)
      writeModel(dir, 'modèle', BYTES)
      writeModel(dir, 'n'.repeat(129), BYTES)
      file(dir, ['a b.onnx'])
    },
    problems: [
      ['a b/', /"a b"/],
      ['copy~/', /"copy~"/],
      ['modèle/', /"modèle"/],
      ['my model/', /"my model"/],
      [`${'n'.repeat(129)}/`, /expected 1 to 128 letters/],
    ],
  },
  {
    title: 'a name that is no UTF-8, as a model and as a file',
    write: (dir) => {
      writeModel(dir, 'later', BYTES)
      renameSync(join(dir, 'later'), Buffer.concat([Buffer.from(`${dir}/m`), Buffer.from([0xff])]))
      writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xe9]), Buffer.from('.onnx')]), BYTES)
      // Neither a model nor a missing one.
      writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xe9]), Buffer.from('.txt')]), BYTES)
    },
    problems: [
      ['\\xe9.onnx/', /expected a name in UTF-8/],
      ['m\\xff/', /expected a name in UTF-8/],
    ],
  },
  {
    title: 'the same name and version twice',
    write: (dir) => {
      file(dir, ['m.onnx'])
      writeModel(dir, 'm', BYTES)
      writeModel(dir, 'm', BYTES, '2')
      file(dir, ['model.onnx'])
      file(dir, [`${basename(dir)}.onnx`])
    },
    problems: [
      ['m/1', /exists twice/],
      ['DIR/1', /exists twice/],
    ],
    sources: ['m/2'],
  },
  {
    title: 'a model file without a version folder',
    write: (dir) => file(dir, ['m', 'model.onnx']),
    problems: [['m/', /m\/model\.onnx: expected it in a version folder: .*VERSION/]],
  },
  {
    title: 'versions that are called otherwise, where no other one is there',
    write: (dir) => {
      for (const [i, version] of ['0', '-1', '01', '1.5', 'latest', 'v2'].entries())
        file(dir, [`m${i}`, version, 'model.onnx'])
    },
    problems: [0, 1, 2, 3, 4, 5].map((i): Problem => [`m${i}/`, /named by a positive integer, such as 1$/]),
  },
  {
    title: 'a version of too many digits',
    write: (dir) => {
      writeModel(dir, 'm', BYTES)
      file(dir, ['m', '9'.repeat(19), 'model.onnx'])
    },
    problems: [[`m/${'9'.repeat(19)}`, /at most 18 digits, got 19$/]],
    sources: ['m/1'],
  },
  {
    title: 'a name with a slash',
    write: (dir) => void writeModel(dir, join('org', 'm'), BYTES),
    problems: [['org/', /org\/m\/1\/model\.onnx: a model name cannot contain "\/"/]],
  },
  {
    title: 'a config that is no JSON',
    write: (dir) => config(dir, '{'),
    problems: bothVersions(/m\/config\.json: expected a JSON file/),
  },
  {
    title: 'a config with a key that is unknown, in one model only',
    write: (dir) => config(dir, { max_batch: 3 }),
    problems: bothVersions(/m\/config\.json: .*max_batch/s),
  },
  {
    title: 'a config with a key of the prototype',
    write: (dir) => config(dir, '{"labels": {"__proto__": ["a"]}}'),
    problems: bothVersions(/m\/config\.json: .*expected no key "__proto__"/),
  },
  {
    title: 'a config that is nested as deep as it can be',
    write: (dir) => config(dir, '['.repeat(500_000)),
    problems: bothVersions(/m\/config\.json: expected a JSON file/),
  },
  {
    title: 'a config that is too large',
    write: (dir) => config(dir, `{"labels": {"y": ["${'x'.repeat(2 ** 20)}"]}}`),
    problems: bothVersions(/m\/config\.json: .*expected at most 1\.0 MB, got/),
  },
  {
    title: 'a config that is no UTF-8',
    write: (dir) => {
      config(dir, {})
      file(dir, ['m', 'config.json'], Uint8Array.of(0x22, 0xff, 0x22))
    },
    problems: bothVersions(/m\/config\.json: expected a JSON file/),
  },
  {
    title: 'a config that is a folder',
    write: (dir) => {
      writeModel(dir, 'm', BYTES)
      mkdirSync(join(dir, 'm', 'config.json'))
    },
    problems: [['m/1', /config\.json: .*expected a regular file/]],
  },
  {
    title: 'a config that is a named pipe',
    write: (dir) => {
      file(dir, ['m.onnx'])
      fifo(join(dir, 'm.config.json'))
    },
    problems: [['m/1', /m\.config\.json: .*expected a regular file/]],
  },
  {
    title: 'a config that is a broken link is not the same as no config',
    write: (dir) => {
      file(dir, ['m.onnx'])
      symlinkSync('/no/such', join(dir, 'm.config.json'))
    },
    problems: [['m/1', /m\.config\.json: expected a JSON file: found a broken link to \/no\/such/]],
  },
  {
    title: 'labels and samples that are not there, or a device',
    write: (dir) => {
      for (const name of ['l', 's', 'd']) writeModel(dir, name, BYTES)
      file(dir, ['l', 'config.json'], '{"labels": {"y": "labels.txt"}}')
      file(dir, ['s', 'config.json'], '{"warm_up": ["sample.json"]}')
      file(dir, ['d', 'config.json'], '{"labels": {"y": "zero"}}')
      symlinkSync('/dev/zero', join(dir, 'd', 'zero'))
    },
    problems: [
      ['d/1', /labels: "zero": expected a regular file/],
      ['l/1', /labels: "labels\.txt": expected a file at .*found none/],
      ['s/1', /warm_up: "sample\.json": expected a file at .*found none/],
    ],
  },
  {
    title: 'a config error and a version without a model, both',
    write: (dir) => {
      writeModel(dir, 'm', BYTES)
      mkdirSync(join(dir, 'm', '2'))
      file(dir, ['m', 'config.json'], '{')
    },
    problems: [
      ['m/2', /found none$/],
      ['m/2', /expected a JSON file/],
      ['m/1', /expected a JSON file/],
    ],
  },
  {
    title: 'a broken version that the policy asks for; the latest good one is served',
    write: (dir) => {
      config(dir, { version_policy: { latest: 1 } })
      mkdirSync(join(dir, 'm', '3'))
      mkdirSync(join(dir, 'n'))
      for (const version of ['1', '2']) writeModel(dir, 'n', BYTES, version)
      mkdirSync(join(dir, 'n', '3'))
      file(dir, ['n', 'config.json'], '{"version_policy": {"specific": ["2", "3"]}}')
    },
    problems: [
      ['m/3', /found none$/],
      ['n/3', /found none$/],
    ],
    sources: ['m/2', 'n/2'],
  },
]

function entryOf({ name, version }: { name: string; version: string | null }, dir: string): string {
  return `${name === basename(dir) ? 'DIR' : name}/${version ?? ''}`
}

function assertProblem(
  t: ExecutionContext,
  { sources, problems }: RepositoryScan,
  dir: string,
  bad: BadEntry,
) {
  t.deepEqual(
    sources.map((source) => entryOf(source, dir)).toSorted(),
    ['good/1', ...(bad.sources ?? [])].toSorted(),
    'what is served',
  )
  const found = problems.map((problem) => entryOf(problem, dir))
  t.deepEqual(found.toSorted(), bad.problems.map(([entry]) => entry).toSorted(), JSON.stringify(problems))
  for (const [entry, says] of bad.problems)
    t.true(
      problems.some((problem) => entryOf(problem, dir) === entry && says.test(problem.reason)),
      `${entry}: ${says} in ${JSON.stringify(problems)}`,
    )
  for (const { code, reason } of problems) {
    t.is(code, 'REPOSITORY_INVALID')
    t.notRegex(reason, /^\s+at /m, 'no stack')
  }
}

for (const bad of BAD) {
  test(`${bad.title}: reported, and the good models are served`, async (t) => {
    const dir = writeModel(temporaryFolder(t), 'good', BYTES)
    await bad.write(dir)
    assertProblem(t, await scanRepository(dir), dir, bad)
  })
}

test('a socket is not a model file and is not opened', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'good', BYTES)
  const server = createServer(() => t.fail('nothing connects'))
  await new Promise<void>((resolve) => server.listen(join(dir, 'm.onnx'), resolve))
  t.teardown(() => server.close())
  const { sources, problems } = await scanRepository(dir)
  t.is(sources.length, 1)
  t.regex(problems[0]?.reason ?? '', /found a socket$/)
})

test('files of tools and volumes are ignored', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'good', BYTES)
  for (const name of ['.git', '.m.onnx.swp', '..2026_11_26', 'lost+found', '.Trash-0'])
    writeModel(dir, name, BYTES)
  for (const name of ['m.onnx~', 'm.onnx.part', '#m.onnx#', '.hidden.onnx', '4913', 'good.config.json~'])
    writeFileSync(join(dir, name), BYTES)
  symlinkSync('somebody@host.1234', join(dir, '.#m.onnx'))
  fifo(join(dir, 'pipe'))
  mkdirSync(join(dir, 'empty'))
  for (const version of ['0', '-1', '01', '1.5', 'latest', '1~', '.2'])
    writeModel(dir, 'good', BYTES, version)
  writeFileSync(join(dir, 'good', '7'), 'a file, not a folder')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ name, version }) => `${name}/${version}`),
    ['good/1'],
  )
})

test('an Ersilia bundle inside the repository is a model if it has versions, otherwise it is ignored', async (t) => {
  const dir = temporaryFolder(t)
  for (const name of ['eos1', 'eos2']) {
    file(dir, [name, 'metadata.yml'], 'Identifier: x')
    file(dir, [name, 'model', 'framework', 'run.sh'], '#!/bin/sh')
    file(dir, [name, 'model', 'checkpoints', 'model.onnx'])
  }
  writeModel(dir, 'eos1', BYTES)
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ name }) => name),
    ['eos1'],
  )
})

test('an atomically updated volume is read through its ..data link', async (t) => {
  const dir = temporaryFolder(t)
  file(dir, ['..2026_11_26', 'm.onnx'])
  file(dir, ['..2026_11_26', 'm.config.json'], '{"threads": 3}')
  symlinkSync('..2026_11_26', join(dir, '..data'))
  for (const name of ['m.onnx', 'm.config.json']) symlinkSync(join('..data', name), join(dir, name))
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ name, config: { threads } }) => [name, threads]),
    [['m', 3]],
  )
})

test('names of Object.prototype are ordinary names', async (t) => {
  const dir = temporaryFolder(t)
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) writeModel(dir, name, BYTES)
  file(dir, ['__proto__', 'config.json'], '{"labels": {"constructor": ["a"]}}')
  const { sources, problems } = await scanRepository(dir)
  t.deepEqual(problems, [])
  t.deepEqual(
    sources.map(({ name }) => name),
    ['__proto__', 'constructor', 'hasOwnProperty', 'toString'],
  )
  t.deepEqual(Object.getOwnPropertyNames(sources[0]?.config.labels).toSorted(), ['constructor'])
})

/** Scans as an unprivileged user, because root can read everything. */
function scanAsNobody(dir: string): RepositoryScan {
  const url = pathToFileURL(join(PROJECT_ROOT, 'dist', 'src', 'repository', 'repository.js')).href
  const script = `import { scanRepository } from ${JSON.stringify(url)}
process.stdout.write(JSON.stringify(await scanRepository(${JSON.stringify(dir)})))`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    ...(isRoot ? { uid: NOBODY, gid: NOBODY } : {}),
  })
  try {
    return JSON.parse(stdout) as RepositoryScan
  } catch {
    throw new Error(stderr)
  }
}

test('unreadable entries are reported with a reason; lost+found and other files are not', (t) => {
  const dir = writeModel(temporaryFolder(t), 'good', BYTES)
  chmodSync(dir, 0o755)
  const sealed = [
    'folder',
    'lost+found',
    'version/2',
    'config/config.json',
    'model/1/model.onnx',
    'f.onnx',
    'README',
  ]
  for (const name of ['version', 'config', 'model']) writeModel(dir, name, BYTES)
  for (const name of ['folder', 'lost+found']) mkdirSync(join(dir, name))
  writeModel(dir, 'version', BYTES, '2')
  file(dir, ['config', 'config.json'], '{}')
  for (const name of ['f.onnx', 'README']) file(dir, [name])
  t.teardown(() => {
    for (const path of sealed) chmodSync(join(dir, path), 0o700)
  })
  for (const path of sealed) chmodSync(join(dir, path), 0)
  assertProblem(t, scanAsNobody(dir), dir, {
    ...{ title: '', write: () => {}, sources: ['version/1'] },
    problems: [
      ['config/1', /config\.json: expected a JSON file: .*EACCES/],
      ['f/', /f\.onnx: expected a model file, found an unreadable file \(EACCES: permission denied\)$/],
      ['folder/', /folder: expected a readable folder: EACCES: permission denied$/],
      ['model/1', /found an unreadable file \(EACCES/],
      ['version/2', /found an unreadable path \(EACCES/],
    ],
  })
})

test('a missing, unreadable or non-folder repository is rejected', async (t) => {
  const dir = temporaryFolder(t)
  const refused = { code: 'REPOSITORY_INVALID' }
  await t.throwsAsync(scanRepository(join(dir, 'none')), { ...refused, message: /found none$/ })
  writeFileSync(join(dir, 'file'), '')
  await t.throwsAsync(scanRepository(join(dir, 'file')), { ...refused, message: /found a file$/ })
  mkdirSync(join(dir, 'sealed'), { mode: 0 })
  chmodSync(dir, 0o755)
  t.throws(() => scanAsNobody(join(dir, 'sealed')), { message: /readable folder: EACCES/ })
  t.deepEqual(
    await scanRepository(writeModel(join(dir, 'ok'), 'm', BYTES)).then(({ problems }) => problems),
    [],
  )
})

test('entries that appear and disappear during a scan do not abort it', async (t) => {
  const dir = writeModel(temporaryFolder(t), 'good', BYTES)
  let isDone = false
  // A version folder exists before its model file, which is a problem until the file appears.
  const churn = (async () => {
    for (let i = 0; !isDone; i++) {
      writeModel(dir, 'm', BYTES, String((i % 3) + 1))
      copyFileSync(join(dir, 'good', '1', 'model.onnx'), join(dir, `f${i % 2}.onnx`))
      await new Promise((resolve) => setImmediate(resolve))
      rmSync(join(dir, 'm'), { recursive: true, force: true })
      rmSync(join(dir, `f${i % 2}.onnx`))
    }
  })()
  for (let scan = 0; scan < 200; scan++) {
    const { sources, problems } = await scanRepository(dir)
    t.true(sources.some(({ name }) => name === 'good'))
    t.false(
      problems.some(({ name }) => name !== 'm'),
      JSON.stringify(problems),
    )
  }
  isDone = true
  await churn
})

test('any combination of bad entries is reported, and the good ones are served', async (t) => {
  const root = temporaryFolder(t)
  const kinds = {
    empty: (dir: string, name: string) => void mkdirSync(join(dir, name, '1'), { recursive: true }),
    link: (dir: string, name: string) => symlinkSync('/no/such', join(dir, name)),
    json: (dir: string, name: string) => {
      writeModel(dir, name, BYTES)
      file(dir, [name, 'config.json'], '{')
    },
    twice: (dir: string, name: string) => {
      writeModel(dir, name, BYTES)
      file(dir, [`${name}.onnx`])
    },
  }
  const kind = fc.constantFrom('good', ...(Object.keys(kinds) as (keyof typeof kinds)[]))
  await fc.assert(
    fc.asyncProperty(fc.array(kind, { minLength: 1, maxLength: 12 }), async (entries) => {
      const dir = mkdtempSync(join(root, 'scan-'))
      for (const [i, entry] of entries.entries()) {
        if (entry === 'good') writeModel(dir, `e${i}`, BYTES)
        else kinds[entry](dir, `e${i}`)
      }
      const { sources, problems } = await scanRepository(dir)
      const names = (isGood: boolean) =>
        entries.flatMap((entry, i) => ((entry === 'good') === isGood ? `e${i}` : [])).toSorted()
      t.deepEqual(sources.map(({ name }) => name).toSorted(), names(true))
      t.deepEqual([...new Set(problems.map(({ name }) => name))].toSorted(), names(false))
    }),
    { numRuns: 40 },
  )
})
