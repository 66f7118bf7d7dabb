import { closeSync, ftruncateSync, mkdirSync, openSync, statfsSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { create } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { type NodeProto, type TensorProto, TensorProtoSchema } from '../../src/onnx/onnx_pb.js'
import { differenceBetween, runInProcess } from '../helpers/in-process.js'
import {
  addModel,
  ELEMENT,
  graph,
  graphAttribute,
  intAttribute,
  modelBytes,
  node,
  value,
  weights,
  writeModel,
} from '../helpers/onnx-builder.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { inferOutputs, type WireTensor } from '../helpers/v2-client.js'

const { bool, float, int64 } = ELEMENT

function floatTensor(name: string, shape: readonly number[], values: readonly number[]): WireTensor {
  return { name, datatype: 'FP32', shape, bytes: new Uint8Array(Float32Array.from(values).buffer) }
}

interface Row {
  readonly model: string
  readonly workers: string
  readonly sharing: string
}

/** Rows of the table that is printed when the server is ready. */
function readyRows(stdout: string): Row[] {
  const cells = (line: string) => line.split('│').map((cell) => cell.trim())
  const [head = [], ...rows] = stdout
    .split('\n')
    .filter((line) => line.startsWith('│'))
    .map(cells)
  const at = (row: string[], column: string) => row[head.indexOf(column)] ?? ''
  return rows.map((row) => ({
    model: at(row, 'model'),
    workers: at(row, 'workers'),
    sharing: at(row, 'sharing'),
  }))
}

/** Serves one model and compares its outputs with those of the runtime. */
async function servesAsInProcess(
  t: ExecutionContext,
  bytes: Uint8Array,
  requests: readonly (readonly WireTensor[])[],
): Promise<void> {
  const models = writeModel(temporaryFolder(t), 'm', bytes)
  const { server, url } = await startServer(t, { models, args: ['--workers', '2'] })
  for (const request of requests) {
    const { inputs, outputs } = await runInProcess(join(models, 'm', '1', 'model.onnx'), request)
    const got = await inferOutputs({ url, model: 'm', inputs, encoding: 'binary' })
    t.is(differenceBetween(outputs, got), null)
  }
  t.deepEqual(readyRows(server.stdout), [{ model: 'm', workers: '2', sharing: 'shared' }])
  await stopCleanly(t, server)
}

test.serial(
  'a graph of 1,000 nodes with separate weights is shared and returns correct outputs',
  async (t) => {
    const WIDTH = 32
    const LAYERS = 500
    const nodes: NodeProto[] = []
    const initializer: TensorProto[] = []
    for (let layer = 0; layer < LAYERS; layer++) {
      initializer.push(weights(`w${layer}`, [WIDTH, WIDTH]))
      nodes.push(
        node('MatMul', [layer === 0 ? 'x' : `r${layer - 1}`, `w${layer}`], [`h${layer}`]),
        node('Tanh', [`h${layer}`], [layer === LAYERS - 1 ? 'y' : `r${layer}`]),
      )
    }
    t.is(nodes.length, 1000)
    const model = modelBytes(
      graph({
        input: [value('x', float, ['batch', WIDTH])],
        output: [value('y', float, ['batch', WIDTH])],
        node: nodes,
        initializer,
      }),
    )
    const row = Array.from({ length: WIDTH }, (_, i) => Math.cos(i))
    await servesAsInProcess(t, model, [[floatTensor('x', [1, WIDTH], row)]])
  },
)

test.serial(
  'weights inside the bodies of If and Loop are shared, and every branch returns correct outputs',
  async (t) => {
    const WIDTH = 128
    const state = [value('state', float, ['batch', WIDTH])]
    const branch = (name: string) =>
      graph({
        input: [],
        output: [value(`${name}_out`, float, ['batch', WIDTH])],
        node: [node('MatMul', ['looped', `${name}_weight`], [`${name}_out`])],
        initializer: [weights(`${name}_weight`, [WIDTH, WIDTH])],
      })
    const body = graph({
      input: [value('i', int64, []), value('going', bool, []), ...state],
      output: [value('still_going', bool, []), value('next', float, ['batch', WIDTH])],
      node: [
        node('Identity', ['going'], ['still_going']),
        node('MatMul', ['state', 'body_weight'], ['product']),
        node('Tanh', ['product'], ['next']),
      ],
      initializer: [weights('body_weight', [WIDTH, WIDTH])],
    })
    const model = modelBytes(
      graph({
        input: [
          value('x', float, ['batch', WIDTH]),
          value('iterations', int64, []),
          value('which', bool, []),
        ],
        output: [value('y', float, ['batch', WIDTH])],
        node: [
          node('Loop', ['iterations', '', 'x'], ['looped'], { attribute: [graphAttribute('body', body)] }),
          node('If', ['which'], ['y'], {
            attribute: [
              graphAttribute('then_branch', branch('then')),
              graphAttribute('else_branch', branch('else')),
            ],
          }),
        ],
      }),
    )
    const row = Array.from({ length: WIDTH }, (_, i) => Math.cos(i))
    const request = (iterations: number, which: number): WireTensor[] => [
      floatTensor('x', [1, WIDTH], row),
      {
        name: 'iterations',
        datatype: 'INT64',
        shape: [],
        bytes: new Uint8Array(BigInt64Array.of(BigInt(iterations)).buffer),
      },
      { name: 'which', datatype: 'BOOL', shape: [], bytes: Uint8Array.of(which) },
    ]
    const path = join(temporaryFolder(t), 'branches.onnx')
    writeFileSync(path, model)
    const { code, stdout } = runCommand(['inspect', path, '--no-measure', '--json'])
    t.is(code, 0)
    t.is(JSON.parse(stdout).sharing.sharedRawBytes, 3 * WIDTH * WIDTH * 4)
    await servesAsInProcess(t, model, [request(0, 0), request(3, 0), request(3, 1)])
  },
)

test.serial('thirty models start together, each uses its own weights, and all are reported', async (t) => {
  const names = Array.from({ length: 30 }, (_, i) => `add-${String(i).padStart(2, '0')}`)
  const models = temporaryFolder(t)
  for (const [i, name] of names.entries()) writeModel(models, name, addModel([i, -i]))
  const { server, url, adminUrl } = await startServer(t, { models, args: ['--workers', '2'] })
  t.deepEqual(
    readyRows(server.stdout).map(({ model, workers }) => [model, workers]),
    names.map((name) => [name, '2']),
  )
  const listed = (await (await fetch(`${url}/v2/models`)).json()) as { models: string[] }
  t.deepEqual(listed.models, names)
  const index = await fetch(`${adminUrl}/v2/repository/index`, { method: 'POST' })
  t.deepEqual(
    ((await index.json()) as { name: string; state: string }[]).map(({ name, state }) => [name, state]),
    names.map((name) => [name, 'READY']),
  )
  const point = floatTensor('x', [1, 2], [100, 200])
  const answers = await Promise.all(
    names.map(async (name) => {
      const [y] = await inferOutputs({ url, model: name, inputs: [point] })
      return [...new Float32Array(Uint8Array.from(y?.bytes ?? []).buffer)]
    }),
  )
  t.deepEqual(
    answers,
    names.map((_, i) => [100 + i, 200 - i]),
  )
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
  for (const name of names) t.true(metrics.includes(`model="${name}"`), name)
  await stopCleanly(t, server)
})

const SHM = '/dev/shm'
const GIB = 1024 ** 3
const TABLES = 5
const ROWS = 110_000
const COLUMNS = 1024
const TABLE_BYTES = ROWS * COLUMNS * 4

/** Available bytes of the file system. */
function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize
}

/**
 * Tables in one file next to the model. All rows are zero except the last, which have the number of
 * the table and of the column.
 */
function writeTables(path: string): void {
  const file = openSync(path, 'w')
  ftruncateSync(file, TABLES * TABLE_BYTES)
  for (let table = 0; table < TABLES; table++) {
    const row = Float32Array.from({ length: COLUMNS }, (_, column) => table + column / COLUMNS)
    writeSync(file, new Uint8Array(row.buffer), 0, row.byteLength, (table + 1) * TABLE_BYTES - row.byteLength)
  }
  closeSync(file)
}

/**
 * `y = t0[ids] ++ t1[ids] ++ ...`, ids INT64 [batch], y FP32 [batch, 5 * 1024]; tables are external
 * data.
 */
function tablesModel(location: string): Uint8Array {
  const external = (table: number) =>
    create(TensorProtoSchema, {
      name: `t${table}`,
      dims: [ROWS, COLUMNS].map(BigInt),
      dataType: float,
      dataLocation: 1,
      externalData: Object.entries({
        location,
        offset: String(table * TABLE_BYTES),
        length: String(TABLE_BYTES),
      }).map(([key, text]) => ({ key, value: text })),
    })
  const tables = Array.from({ length: TABLES }, (_, table) => table)
  return modelBytes(
    graph({
      input: [value('ids', int64, ['batch'])],
      output: [value('y', float, ['batch', TABLES * COLUMNS])],
      node: [
        ...tables.map((table) => node('Gather', [`t${table}`, 'ids'], [`g${table}`])),
        node(
          'Concat',
          tables.map((table) => `g${table}`),
          ['y'],
          { attribute: [intAttribute('axis', 1)] },
        ),
      ],
      initializer: tables.map(external),
    }),
  )
}

const TOTAL_BYTES = TABLES * TABLE_BYTES
const SHORT = [
  freeBytes(SHM) < 4 * TOTAL_BYTES && SHM,
  process.availableMemory() < 4 * TOTAL_BYTES && 'memory',
].filter(Boolean)
const testLarge = SHORT.length === 0 ? test.serial : test.serial.skip
const reason = SHORT.length === 0 ? '' : ` (skipped: not enough space: ${SHORT.join(', ')})`

testLarge(`external data of more than 2 GiB is served from one shared copy${reason}`, async (t) => {
  t.timeout(180_000)
  t.true(TOTAL_BYTES > 2 * GIB)
  // Model and cache are in memory too, because writing them to a disk three times would dominate
  // the test.
  const models = temporaryFolder(t, SHM)
  const cacheDir = temporaryFolder(t, SHM)
  const folder = join(models, 'tables', '1')
  mkdirSync(folder, { recursive: true })
  writeTables(join(folder, 'tables.bin'))
  writeFileSync(join(folder, 'model.onnx'), tablesModel('tables.bin'))
  const { server, url } = await startServer(t, { models, cacheDir, args: ['--workers', '2'] })
  const ids = {
    name: 'ids',
    datatype: 'INT64',
    shape: [2],
    bytes: new Uint8Array(BigInt64Array.of(0n, BigInt(ROWS - 1)).buffer),
  }
  const [y] = await inferOutputs({ url, model: 'tables', inputs: [ids], encoding: 'binary' })
  const expected = Float32Array.from({ length: 2 * TABLES * COLUMNS }, (_, i) => {
    const [row, column] = [Math.floor(i / (TABLES * COLUMNS)), i % (TABLES * COLUMNS)]
    return row === 0 ? 0 : Math.floor(column / COLUMNS) + (column % COLUMNS) / COLUMNS
  })
  t.true(Buffer.from(y?.bytes ?? []).equals(Buffer.from(expected.buffer)))
  t.deepEqual(readyRows(server.stdout), [{ model: 'tables', workers: '2', sharing: 'shared' }])
  await stopCleanly(t, server)
})
