import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { InferenceSession } from 'onnxruntime-node'
import { probeRandom } from '../../../src/batchability/probe-inputs.js'
import { parseModel, serializeModel } from '../../../src/onnx/graph.js'
import { ELEMENT, graph, intAttribute, modelBytes, node, value } from '../../helpers/onnx-builder.js'
import { sharedPath, testWithShared } from '../../helpers/shared.js'
import { readTensorFile } from '../../helpers/tensor-file.js'
import type { WireTensor } from '../../helpers/v2-client.js'
import { type Data, fromElements, holdClaim, type Layout, withoutShapes } from './claims.js'

const TYPES: Record<string, readonly [string, (new (buffer: ArrayBuffer) => ArrayLike<unknown>) | null]> = {
  FP32: ['float32', Float32Array],
  FP64: ['float64', Float64Array],
  INT32: ['int32', Int32Array],
  INT64: ['int64', BigInt64Array],
  UINT8: ['uint8', Uint8Array],
  INT8: ['int8', Int8Array],
  BOOL: ['bool', Uint8Array],
  BYTES: ['string', null],
}
const ROWS = 3
/** Most operators need a fraction of this; each case adds only a few runs. */
const ASSIGNMENTS = 20
/** Values that differ strongly, so that a scale or threshold set by another row is noticed. */
const FACTORS = [1, 300, -0.01]

type Random = () => number

/** Null for values that are not tensors, such as sequences. */
function tensorOf(path: string): WireTensor | null {
  try {
    return readTensorFile(path)
  } catch {
    return null
  }
}

function readInputs(folder: string): Data[] | null {
  const inputs: Data[] = []
  for (let i = 0; existsSync(join(folder, `input_${i}.pb`)); i++) {
    const tensor = tensorOf(join(folder, `input_${i}.pb`))
    const [type, ArrayType] = TYPES[tensor?.datatype ?? ''] ?? []
    if (tensor === null || type === undefined || ArrayType === undefined) return null
    const buffer = Uint8Array.from(tensor.bytes ?? []).buffer
    const data = ArrayType === null ? [...(tensor.strings ?? [])] : new ArrayType(buffer)
    inputs.push({ type, dims: tensor.shape, data: data as Data['data'] })
  }
  return inputs
}

/**
 * The same shape with other values: numbers of another magnitude, or the same integers and strings in another
 * order.
 */
function variant(original: Data, row: number, random: Random): Data {
  if (row === 0) return original
  const values = [...original.data] as unknown[]
  if (original.type.startsWith('float')) {
    const factor = FACTORS[row % FACTORS.length] as number
    return fromElements(
      original,
      values.map((value) => (value as number) * factor + random() * 0.1),
    )
  }
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[values[i], values[j]] = [values[j], values[i]]
  }
  return fromElements(original, values)
}

/** Every axis of every input, with every possible row layout. */
function layoutsOf({ dims }: Data): Layout[] {
  return dims.flatMap((size, axis) => {
    if (size === 0) return []
    const whole: Layout[] = [
      { axis, outer: 1, inner: size },
      { axis, outer: size, inner: 1 },
    ]
    return size === 1 ? whole.slice(0, 1) : whole
  })
}

/** Inputs cut to size 1 along an axis, like a single row of a plain batch. */
function firstPart(data: Data, axis: number): Data {
  const before = data.dims.slice(0, axis).reduce((product, size) => product * size, 1)
  const size = data.dims[axis] as number
  const behind = data.dims.slice(axis + 1).reduce((product, one) => product * one, 1)
  const values = Array.from({ length: before }, (_, block) => [
    ...(data.data.slice(block * size * behind, block * size * behind + behind) as unknown[]),
  ]).flat()
  return { ...fromElements(data, values), dims: data.dims.map((one, i) => (i === axis ? 1 : one)) }
}

interface Assignment {
  readonly layouts: readonly (Layout | null)[]
  readonly inputs: readonly Data[]
}

/** Inputs of one case with rows: typical combinations and random ones. */
function chosenLayouts(inputs: readonly Data[], random: Random): (Layout | null)[][] {
  const pick = <T>(some: readonly T[]): T | undefined => some[Math.floor(random() * some.length)]
  const layouts = inputs.map(layoutsOf)
  const first = inputs[0] as Data
  const natural = (layouts[0] ?? []).flatMap((layout) => {
    const alike = (i: number) =>
      layouts[i]?.find((one) => one.axis === layout.axis && one.outer === 1) ?? null
    return [
      inputs.map((_, i) => (i === 0 ? layout : null)),
      // The first inputs, all with the same batch; all except scalars.
      ...inputs.map((_, last) => inputs.map((_, i) => (i <= last ? alike(i) : null))),
      inputs.map(({ dims }, i) => (dims[layout.axis] === first.dims[layout.axis] ? alike(i) : null)),
      inputs.map(({ dims }, i) => (dims.length > 1 ? alike(i) : null)),
    ]
  })
  const byChance = Array.from({ length: ASSIGNMENTS }, () => {
    const axis = Math.floor(random() * 3)
    return layouts.map((some) => {
      if (random() < (inputs.length > 2 ? 0.4 : 0.3)) return null
      return (random() < 0.7 ? some.find((one) => one.axis === axis) : undefined) ?? pick(some) ?? null
    })
  })
  return [...natural, ...byChance]
}

function assignments(inputs: readonly Data[], random: Random): Assignment[] {
  const found = new Map<string, Assignment>()
  for (const chosen of chosenLayouts(inputs, random)) {
    if (chosen.every((layout) => layout === null)) continue
    for (const isPlain of [true, false]) {
      const layouts = chosen.map((layout) => layout && (isPlain ? { ...layout, outer: 1, inner: 1 } : layout))
      const parts = inputs.map((data, i) => {
        const layout = chosen[i] ?? null
        return layout !== null && isPlain ? firstPart(data, layout.axis) : data
      })
      found.set(JSON.stringify([isPlain, layouts]), { layouts, inputs: parts })
    }
  }
  return [...found.values()]
}

async function holdCase(t: ExecutionContext, name: string, counts: Map<string, number>): Promise<void> {
  const folder = sharedPath('onnx-node-tests', 'node', name)
  const inputs = readInputs(join(folder, 'test_data_set_0'))
  if (inputs === null || inputs.length === 0) return
  const bytes = withoutShapes(readFileSync(join(folder, 'model.onnx')))
  const session = await InferenceSession.create(bytes, { intraOpNumThreads: 1, logSeverityLevel: 4 }).catch(
    () => null,
  )
  if (session === null) return
  try {
    if (session.inputNames.length !== inputs.length) return
    const random = probeRandom(name.length)
    for (const { layouts, inputs: given } of assignments(inputs, random)) {
      const parts = given.map((data) => Array.from({ length: ROWS }, (_, row) => variant(data, row, random)))
      const outcome = await holdClaim({ bytes, session, layouts, parts })
      counts.set(outcome.kind, (counts.get(outcome.kind) ?? 0) + 1)
      if (outcome.kind === 'broken') t.fail(`${name} with ${JSON.stringify(layouts)}: ${outcome.message}`)
    }
  } finally {
    await session.release()
  }
}

/** The bytes of `dims` before the stack was moved and the last two dimensions were swapped. */
function undone(dims: readonly number[], { turns, moves }: { turns: boolean; moves: boolean }): number[] {
  const whole = turns ? [...dims.slice(0, -2), dims.at(-1), dims.at(-2)] : [...dims]
  return (moves ? [whole.at(-2), ...whole.slice(0, -2), whole.at(-1)] : whole) as number[]
}

function fusedProduct(flags: Readonly<Record<string, boolean>>): Uint8Array {
  const attribute = Object.entries(flags).map(([name, is]) => intAttribute(name, is ? 1 : 0))
  const [a, b, y] = ['a', 'b', 'y'].map((name) => value(name, ELEMENT.float, null)) as [never, never, never]
  const nodes = [node('FusedMatMul', ['a', 'b'], ['y'], { domain: 'com.microsoft', attribute })]
  const model = parseModel(modelBytes(graph({ input: [a, b], output: [y], node: nodes })))
  model.opsetImport.push({
    ...(model.opsetImport[0] as (typeof model.opsetImport)[0]),
    domain: 'com.microsoft',
    version: 1n,
  })
  return serializeModel(model)
}

/** Rows along every axis of either operand, or none, plain or in blocks as large as the axis. */
function fusedAssignments(shapes: readonly (readonly number[])[]): Assignment[] {
  const axes = shapes.map((dims) => [null, ...dims.keys()])
  return (axes[0] ?? []).flatMap((left) =>
    (axes[1] ?? []).flatMap((right) => {
      if (left === null && right === null) return []
      return [true, false].map((isPlain) => {
        const chosen = [left, right]
        const sizeOf = (i: number, axis: number) => (isPlain ? 1 : (shapes[i]?.[axis] as number))
        const layouts = chosen.map((axis, i) =>
          axis === null ? null : { axis, outer: 1, inner: sizeOf(i, axis) },
        )
        const inputs = shapes.map((dims, i): Data => {
          const own = dims.map((size, axis) => (axis === chosen[i] ? sizeOf(i, axis) : size))
          const count = own.reduce((product, one) => product * one, 1)
          const data = Float32Array.from({ length: count }, (_, at) => Math.sin(at * 1.7 + i))
          return { type: 'float32', dims: own, data }
        })
        return { layouts, inputs }
      })
    }),
  )
}

test('claims about rows in fused products of every form hold in the runtime', async (t) => {
  let held = 0
  for (let form = 0; form < 32; form++) {
    const [transA, transB, transBatchA, transBatchB, isDeep] = [1, 2, 4, 8, 16].map(
      (bit) => (form & bit) !== 0,
    )
    const flags = { transA, transB, transBatchA, transBatchB } as Record<string, boolean>
    const stack = isDeep ? [2, 3] : [2]
    const a = undone([...stack, 4, 5], { turns: transA === true, moves: transBatchA === true })
    const b = undone([...stack, 5, 3], { turns: transB === true, moves: transBatchB === true })
    const bytes = fusedProduct(flags)
    const session = await InferenceSession.create(bytes, {
      graphOptimizationLevel: 'disabled',
      logSeverityLevel: 4,
    })
    const random = probeRandom(form)
    try {
      for (const { layouts, inputs: given } of fusedAssignments([a, b])) {
        const parts = given.map((data) =>
          Array.from({ length: ROWS }, (_, row) => variant(data, row, random)),
        )
        const outcome = await holdClaim({ bytes, session, layouts, parts })
        if (outcome.kind === 'held') held++
        else t.true(['no claim', 'no row'].includes(outcome.kind), JSON.stringify([flags, layouts, outcome]))
      }
    } finally {
      await session.release()
    }
  }
  t.is(held, 224)
})

testWithShared(
  "what is said of the rows in the ONNX project's own cases is what the runtime does with them",
  ['onnx-node-tests'],
  async (t) => {
    const counts = new Map<string, number>()
    const names = readdirSync(sharedPath('onnx-node-tests', 'node')).sort()
    for (const name of names) await holdCase(t, name, counts)
    t.log(Object.fromEntries(counts))
    t.true((counts.get('held') ?? 0) > 1000)
  },
)
