import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import * as z from 'zod'
import {
  addModel,
  ELEMENT,
  graph,
  modelBytes,
  node,
  quantisedConvolution,
  value,
  weights,
  wideModel,
} from '../../helpers/onnx-builder.js'
import { runCommand, temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT, sharedPath, testWithShared } from '../../helpers/shared.js'
import { until } from '../../helpers/waiting.js'

const Document = z.object({
  model: z.string(),
  name: z.string(),
  inputs: z.array(z.object({ name: z.string(), datatype: z.string(), shape: z.array(z.int()).nullable() })),
  operators: z.array(z.object({ operator: z.string(), count: z.int() })),
  weights: z.object({ count: z.int(), bytes: z.int() }),
  sharing: z.object({ state: z.string(), sharedRawBytes: z.int(), sharedPackedBytes: z.int() }),
  unshared: z.array(z.object({ operator: z.string(), bytes: z.int(), why: z.string(), change: z.string() })),
  random: z.string().nullable(),
  batching: z.object({ batchable: z.boolean(), reason: z.string() }),
  segmentBytes: z.int(),
  workers: z.int(),
  totalBytes: z.int().nullable(),
  measurement: z
    .object({
      loadedBytes: z.array(z.int()).length(2),
      ranBytes: z.array(z.int()).length(2).nullable(),
      libraryBytes: z.int(),
      firstSessionBytes: z.int(),
      perWorkerBytes: z.int(),
      run: z.union([
        z.object({ shapes: z.record(z.string(), z.array(z.int())) }),
        z.object({ problem: z.string() }),
      ]),
    })
    .nullable(),
})

/** Separate folders, to check that nothing is left in them. */
interface Folders {
  readonly segmentDir: string
  readonly tmp: string
}

function foldersOf(t: ExecutionContext): Folders {
  return { segmentDir: temporaryFolder(t, '/dev/shm'), tmp: temporaryFolder(t) }
}

function leftIn({ segmentDir, tmp }: Folders): string[] {
  return [...readdirSync(segmentDir), ...readdirSync(tmp)]
}

function modelFile(t: ExecutionContext, bytes: Uint8Array, name = 'm'): string {
  const path = join(temporaryFolder(t), `${name}.onnx`)
  writeFileSync(path, bytes)
  return path
}

/** Runs inspect and checks that it leaves nothing. */
function inspect(t: ExecutionContext, model: string, ...flags: string[]) {
  const folders = foldersOf(t)
  const result = runCommand(['inspect', model, '--segment-dir', folders.segmentDir, ...flags], {
    TMPDIR: folders.tmp,
  })
  t.deepEqual(leftIn(folders), [])
  return result
}

function document(t: ExecutionContext, model: string, ...flags: string[]): z.infer<typeof Document> {
  const { code, stdout, stderr } = inspect(t, model, '--json', ...flags)
  t.deepEqual({ code, stderr }, { code: 0, stderr: '' })
  return Document.parse(JSON.parse(stdout))
}

/** `y = x W`, W FP32 [inner, 300]; the inner dimension of x is undeclared. */
function innerModel(inner: number): Uint8Array {
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', 'inner'])],
      output: [value('y', ELEMENT.float, ['batch', 300])],
      node: [node('MatMul', ['x', 'weight'], ['y'])],
      initializer: [weights('weight', [inner, 300])],
    }),
  )
}

test.serial('the measured cost of another worker is a small part of shared weights', (t) => {
  const weightBytes = 64 * 1024 * 1024
  const path = modelFile(t, wideModel(weightBytes), 'wide')
  const found = document(t, path, '--workers', '4')
  t.like(found, { model: path, name: 'wide', workers: 4, unshared: [] })
  t.deepEqual(found.inputs, [{ name: 'x', datatype: 'FP32', shape: [-1, 1024] }])
  t.deepEqual(found.operators, [{ operator: 'MatMul', count: 1 }])
  t.deepEqual(found.weights, { count: 1, bytes: weightBytes })
  t.is(found.sharing.state, 'shared')
  t.is(found.sharing.sharedRawBytes, weightBytes)
  t.true(found.batching.batchable)
  t.true(found.segmentBytes > weightBytes)
  const { measurement } = found
  t.deepEqual(measurement?.run, { shapes: { x: [1, 1024] } })
  const perWorkerBytes = measurement?.perWorkerBytes as number
  t.true(perWorkerBytes < weightBytes / 2, `another worker takes ${perWorkerBytes} bytes`)
  for (const bytes of measurement?.ranBytes ?? []) t.true(bytes > (measurement?.libraryBytes ?? 0))
  t.is(found.totalBytes, found.segmentBytes + 4 * perWorkerBytes)
})

test.serial('weights packed per worker are listed by operator, with a remedy', (t) => {
  const found = document(t, modelFile(t, quantisedConvolution()), '--no-measure')
  t.is(found.sharing.state, 'packed privately')
  const [unshared] = found.unshared
  t.like(unshared, { operator: 'QLinearConv', bytes: 36_864, why: 'packed by the kernel' })
  t.regex(unshared?.change ?? '', /FP32.*294\.9 kB per host.*with 8 workers or more/)
})

testWithShared('trees are listed as not shareable', ['models', 'sklearn-rf-iris'], async (t) => {
  const found = document(t, sharedPath('models', 'sklearn-rf-iris', 'model.onnx'), '--workers', '2')
  t.is(found.name, 'sklearn-rf-iris')
  t.is(found.sharing.state, 'not shareable')
  const [unshared] = found.unshared
  t.like(unshared, { operator: 'TreeEnsembleClassifier', why: 'node attributes' })
  t.regex(unshared?.change ?? '', /tensor operations/)
  t.truthy(found.measurement?.ranBytes)
})

test.serial(
  'undeclared dimensions are tried until the model runs; a model that never runs is measured anyway',
  (t) => {
    const runs = document(t, modelFile(t, innerModel(16)))
    t.deepEqual(runs.measurement?.run, { shapes: { x: [1, 16] } })
    const never = document(t, modelFile(t, innerModel(24)))
    t.regex(
      never.measurement?.run && 'problem' in never.measurement.run ? never.measurement.run.problem : '',
      /MatMul/,
    )
    t.is(never.measurement?.ranBytes, null)
    t.true((never.measurement?.loadedBytes[0] ?? 0) > 0)
  },
)

test.serial('the default output is a table; names from the file cannot move the cursor', (t) => {
  const { code, stdout } = inspect(t, modelFile(t, addModel()), '--workers', '3')
  t.is(code, 0)
  for (const row of ['input .* x .* FP32 .* \\[-1, 2\\]', 'operators .* 1 Add', 'weights .* 1 tensors, 8 B'])
    t.regex(stdout, new RegExp(row))
  t.regex(stdout, /batching +│ yes: rows run alone and together agree/)
  t.regex(stdout, /another worker +│ .*MB, measured after one run with zeros, x \[1, 2\]/)
  t.regex(stdout, /3 workers/)
  const evil = modelBytes(
    graph({
      input: [value('\u001b[2Jx', ELEMENT.float, ['n'])],
      output: [value('y', ELEMENT.float, ['n'])],
      node: [node('Abs', ['\u001b[2Jx'], ['y'])],
    }),
  )
  const cleaned = inspect(t, modelFile(t, evil), '--no-measure').stdout
  t.true(cleaned.includes('\\u001b[2Jx'))
  t.false(cleaned.includes('\u001b'))
})

test.serial('without measurement nothing is written to shared memory', (t) => {
  const path = modelFile(t, addModel())
  const { code, stdout } = runCommand([
    'inspect',
    path,
    '--no-measure',
    '--segment-dir',
    '/no/such/folder',
    '--json',
  ])
  t.is(code, 0)
  t.is(Document.parse(JSON.parse(stdout)).measurement, null)
})

test.serial('a model that cannot be served exits with 1 and the error code, also in JSON', (t) => {
  const unsupported = modelBytes(
    graph({
      input: [value('x', ELEMENT.float, [2])],
      output: [value('y', ELEMENT.float, [2])],
      node: [node('NoSuchOperator', ['x'], ['y'])],
    }),
  )
  for (const [bytes, errorCode] of [
    [Buffer.from('this is a text file\n'), 'MODEL_INVALID'],
    [unsupported, 'MODEL_UNSUPPORTED'],
  ] as const) {
    const path = modelFile(t, bytes)
    const { code, stdout, stderr } = inspect(t, path, '--json')
    t.is(code, 1)
    t.regex(stderr, new RegExp(`^onecopy: ${errorCode}: `))
    t.like(JSON.parse(stdout), { model: path, error: { code: errorCode } })
    t.is(inspect(t, path).stdout, '')
  }
})

test.serial('a wrong command line exits with 2', (t) => {
  const path = modelFile(t, addModel())
  const wrong = [
    [],
    [path, path],
    ['/no/such/model.onnx'],
    ['/dev'],
    [path, '--workers', '0'],
    [path, '--jsn'],
  ]
  for (const args of [...wrong, [path, '--segment-dir', '/no/such/folder']]) {
    const { code, stdout, stderr } = runCommand(['inspect', ...args])
    t.deepEqual({ code, stdout }, { code: 2, stdout: '' }, args.join(' '))
    t.regex(stderr, /^onecopy: (CONFIG_INVALID: [\s\S]*onecopy inspect --help|SEGMENT_FOLDER_INVALID)/)
  }
})

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
  return text.split(' ').filter(Boolean).map(Number)
}

for (const [when, hasBegun] of [
  ['during compilation', ({ tmp }: Folders) => readdirSync(tmp).length > 0],
  ['during the measurement', ({ segmentDir }: Folders) => readdirSync(segmentDir).length > 0],
] as const) {
  test.serial(`interrupted ${when}, it exits with 130 and leaves no files or processes`, async (t) => {
    const folders = foldersOf(t)
    const path = modelFile(t, wideModel(32 * 1024 * 1024))
    const main = join(PROJECT_ROOT, 'dist', 'cluster', 'main.js')
    const child = spawn(process.execPath, [main, 'inspect', path, '--segment-dir', folders.segmentDir], {
      env: { ...process.env, TMPDIR: folders.tmp },
      stdio: 'ignore',
    })
    t.teardown(() => child.kill('SIGKILL'))
    const exited = once(child, 'exit')
    const pid = child.pid as number
    const deadlineMs = performance.now() + 30_000
    while (!hasBegun(folders) || childrenOf(pid).length === 0) {
      if (performance.now() > deadlineMs) throw new Error(`waited 30 s until it was interrupted ${when}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    const children = childrenOf(pid)
    child.kill('SIGINT')
    t.deepEqual(await exited, [130, null])
    t.deepEqual(leftIn(folders), [])
    // A process that has finished its work may still be ending.
    await until('its processes to end', () => children.every((one) => !existsSync(`/proc/${one}`)))
  })
}
