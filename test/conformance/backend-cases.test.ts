import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { GrpcClient } from '../helpers/grpc-client.js'
import { grpcOutputs, hasTypedForm } from '../helpers/grpc-tensors.js'
import { differenceBetween, runInProcess } from '../helpers/in-process.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { sharedPath, testWithShared } from '../helpers/shared.js'
import { readTensorFile } from '../helpers/tensor-file.js'
import { inferOutputs, type WireTensor } from '../helpers/v2-client.js'

const SUITES = ['node', 'simple', 'pytorch-converted', 'pytorch-operator']
/** Tolerance for the published outputs of a case. Source: the defaults of the ONNX backend test runner. */
const RELATIVE_TOLERANCE = 1e-3
const ABSOLUTE_TOLERANCE = 1e-7

interface Case {
  readonly name: string
  readonly path: string
  readonly inputs: WireTensor[]
  readonly outputs: WireTensor[]
}

function tensorsOf(folder: string, kind: 'input' | 'output'): (WireTensor | null)[] {
  const tensors: (WireTensor | null)[] = []
  for (let i = 0; ; i++) {
    const path = join(folder, 'test_data_set_0', `${kind}_${i}.pb`)
    if (!existsSync(path)) return tensors
    tensors.push(readTensorFile(path))
  }
}

function numbersOf({ datatype, bytes = new Uint8Array() }: WireTensor): number[] {
  const buffer = Uint8Array.from(bytes).buffer
  if (datatype === 'FP32') return [...new Float32Array(buffer)]
  if (datatype === 'FP64') return [...new Float64Array(buffer)]
  if (datatype !== 'FP16') return []
  return [...new Uint16Array(buffer)].map((bits) => {
    const exponent = (bits >> 10) & 31
    const fraction = bits & 1023
    const sign = bits >> 15 ? -1 : 1
    if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
    return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15))
  })
}

/** Whether in-process results equal the published outputs. */
function isAsPublished(published: (WireTensor | null)[], got: readonly WireTensor[]): boolean {
  return published.every((want, i) => {
    const have = got[i]
    if (want === null || have === undefined || have.shape.join() !== want.shape.join()) return false
    const floats = numbersOf(want)
    if (floats.length === 0) return differenceBetween([{ ...want, name: have.name }], [have]) === null
    const others = numbersOf(have)
    return floats.every((number, k) => {
      const other = others[k] as number
      if (Object.is(number, other) || number === other) return true
      return Math.abs(number - other) <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * Math.abs(number)
    })
  })
}

/** The cases that pass in-process. A case with a type that aborts the runtime is not run. */
async function passingCases(): Promise<Case[]> {
  const root = sharedPath('onnx-node-tests')
  const known = JSON.parse(readFileSync(join(root, 'results-ort-1.30.json'), 'utf8')) as Record<
    string,
    { status: string }
  >
  const cases: Case[] = []
  for (const suite of SUITES) {
    for (const name of readdirSync(join(root, suite)).sort()) {
      const status = known[name]?.status
      if (status !== undefined && status !== 'pass') continue
      const folder = join(root, suite, name)
      const given = tensorsOf(folder, 'input')
      if (given.includes(null)) continue
      const path = join(folder, 'model.onnx')
      const result = await runInProcess(path, given as WireTensor[]).catch(() => null)
      if (result === null || !isAsPublished(tensorsOf(folder, 'output'), result.outputs)) continue
      cases.push({ name, path: folder, ...result })
    }
  }
  return cases
}

function hasJsonForm({ inputs, outputs }: Case): boolean {
  return ![...inputs, ...outputs].some(({ datatype }) => datatype === 'FP16' || datatype === 'BF16')
}

/** Bits, NaNs included. */
function areSame(some: readonly WireTensor[], others: readonly WireTensor[]): boolean {
  return isDeepStrictEqual(some, others)
}

const WAYS = ['REST binary', 'REST JSON', 'gRPC raw', 'gRPC typed'] as const
type Way = (typeof WAYS)[number]

function has(one: Case, way: Way): boolean {
  if (way === 'REST JSON') return hasJsonForm(one)
  return way !== 'gRPC typed' || hasTypedForm(one.inputs)
}

async function outputsBy(
  way: Way,
  { name: model, inputs }: Case,
  { url, client }: { readonly url: string; readonly client: GrpcClient },
): Promise<WireTensor[]> {
  if (way === 'REST binary') return await inferOutputs({ url, model, inputs, encoding: 'binary' })
  if (way === 'REST JSON') return await inferOutputs({ url, model, inputs, encoding: 'json' })
  return await grpcOutputs(client, { model, inputs, form: way === 'gRPC raw' ? 'raw' : 'typed' })
}

testWithShared(
  'backend cases that pass in-process pass over REST, JSON and binary, and over gRPC, raw and typed',
  ['onnx-node-tests'],
  async (t) => {
    t.timeout(600_000)
    const cases = await passingCases()
    t.true(cases.length >= 624, `expected at least 624 cases to pass in-process, got ${cases.length}`)
    const models = temporaryFolder(t)
    for (const { name, path } of cases) {
      mkdirSync(join(models, name))
      symlinkSync(path, join(models, name, '1'))
    }
    const { server, url } = await startServer(t, { models, args: ['--workers', '1', '--grpc-port', '0'] })
    const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
    const client = new GrpcClient(`127.0.0.1:${grpcPort}`)
    const failures: string[] = []
    const passed = new Map<Way, number>()
    for (const one of cases) {
      let binary: WireTensor[] = []
      for (const way of WAYS.filter((some) => has(one, some))) {
        const difference = await outputsBy(way, one, { url, client }).then(
          (outputs) => {
            if (way === 'REST binary') binary = outputs
            else if (way !== 'REST JSON' && !areSame(outputs, binary))
              return 'not what REST answers in binary'
            return differenceBetween(one.outputs, outputs)
          },
          (thrown: Error) => thrown.message,
        )
        if (difference === null) passed.set(way, (passed.get(way) ?? 0) + 1)
        else failures.push(`${one.name} ${way}: ${difference}`)
      }
    }
    const counts = WAYS.map((way) => `${way} ${passed.get(way)}`).join(', ')
    t.log(`${cases.length} cases pass in-process; ${counts}; FP16 has no JSON and no typed form`)
    t.deepEqual(failures, [])
    client.close()
    await stopCleanly(t, server)
  },
)
