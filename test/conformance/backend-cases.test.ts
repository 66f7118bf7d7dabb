import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
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

testWithShared(
  'backend cases that pass in-process pass over HTTP, JSON and binary',
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
    const { server, url } = await startServer(t, { models, args: ['--workers', '1'] })
    const failures: string[] = []
    const passed = { binary: 0, json: 0 }
    let withoutJson = 0
    for (const one of cases) {
      for (const encoding of ['binary', 'json'] as const) {
        if (encoding === 'json' && !hasJsonForm(one)) {
          withoutJson++
          continue
        }
        const difference = await inferOutputs({ url, model: one.name, inputs: one.inputs, encoding }).then(
          (outputs) => differenceBetween(one.outputs, outputs),
          (thrown: Error) => thrown.message,
        )
        if (difference === null) passed[encoding]++
        else failures.push(`${one.name} ${encoding}: ${difference}`)
      }
    }
    t.log(
      `${cases.length} cases pass in-process; over HTTP ${passed.binary} in binary, ${passed.json} in JSON`,
    )
    t.log(`${withoutJson} use FP16, which has no JSON form`)
    t.deepEqual(failures, [])
    await stopCleanly(t, server)
  },
)
