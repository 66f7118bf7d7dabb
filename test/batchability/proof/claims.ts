/**
 * Checks the claims of the interpreter about one operator against the runtime. Some inputs are given rows
 * along an axis in some layout. If the interpreter claims a row layout for an output, the operator runs on
 * every row alone and on all rows together. The elements of each row must then equal the result of the row
 * alone.
 */
import { type InferenceSession, Tensor } from 'onnxruntime-node'
import { Interpreter } from '../../../src/batchability/proof/interpreter.js'
import { literal } from '../../../src/batchability/proof/sizes.js'
import {
  type Constant,
  constant,
  integers,
  rows,
  type Value,
} from '../../../src/batchability/proof/values.js'
import { parseModel, serializeModel } from '../../../src/onnx/graph.js'

type Elements = Float32Array | Float64Array | Int32Array | BigInt64Array | Uint8Array | Int8Array | string[]

export interface Data {
  readonly type: string
  readonly dims: readonly number[]
  readonly data: Elements
}

/** The layout of rows in an input. */
export interface Layout {
  readonly axis: number
  readonly outer: number
  readonly inner: number
}

function count(dims: readonly number[]): number {
  return dims.reduce((product, size) => product * size, 1)
}

/** Joins rows so that block o, row r, part i of the axis is part (o, i) of row r. */
export function together(parts: readonly Data[], { axis, outer, inner }: Layout): Data {
  const [first] = parts as [Data]
  const before = count(first.dims.slice(0, axis)) * outer
  const behind = count(first.dims.slice(axis + 1)) * inner
  const dims = first.dims.map((size, i) => (i === axis ? size * parts.length : size))
  const data = Array.from({ length: before }, (_, block) =>
    parts.flatMap((part) => [...part.data.slice(block * behind, (block + 1) * behind)] as unknown[]),
  ).flat()
  return { type: first.type, dims, data: like(first.data, data) }
}

function like(model: Elements, values: readonly unknown[]): Elements {
  if (Array.isArray(model)) return values as string[]
  const Construct = model.constructor as new (values: readonly unknown[]) => Elements
  return new Construct(values)
}

export function fromElements(model: Data, values: readonly unknown[]): Data {
  return { ...model, data: like(model.data, values) }
}

/** The elements of row `row` of `rowCount` in the joined tensor. */
function partOf(all: Data, layout: Layout, { row, rowCount }: { row: number; rowCount: number }): Data {
  const { axis, outer, inner } = layout
  const before = count(all.dims.slice(0, axis)) * outer
  const behind = count(all.dims.slice(axis + 1)) * inner
  const data = Array.from({ length: before }, (_, block) => {
    const from = (block * rowCount + row) * behind
    return [...all.data.slice(from, from + behind)] as unknown[]
  }).flat()
  const dims = all.dims.map((size, i) => (i === axis ? size / rowCount : size))
  return { type: all.type, dims, data: like(all.data, data) }
}

function isSame(a: Data, b: Data): boolean {
  if (a.dims.join() !== b.dims.join() || a.data.length !== b.data.length) return false
  const scale = Math.max(
    1e-6,
    ...[...a.data].map((value) =>
      typeof value === 'number' && Number.isFinite(value) ? Math.abs(value) : 0,
    ),
  )
  return [...a.data].every((value, i) => {
    const other = b.data[i]
    if (Object.is(value, other) || value === other) return true
    if (typeof value !== 'number' || typeof other !== 'number') return false
    return Number.isNaN(value) ? Number.isNaN(other) : Math.abs(value - other) <= 1e-4 * scale
  })
}

/** The model without declared shapes, so that it accepts any. */
export function withoutShapes(bytes: Uint8Array): Uint8Array {
  const model = parseModel(bytes)
  for (const info of [...model.graph.input, ...model.graph.output]) {
    if (info.type?.value.case === 'tensorType') delete info.type.value.value.shape
  }
  model.graph.valueInfo = []
  return serializeModel(model)
}

function toTensor({ type, data, dims }: Data): Tensor {
  return new (Tensor as unknown as new (type: string, data: unknown, dims: readonly number[]) => Tensor)(
    type,
    data,
    dims,
  )
}

async function run(session: InferenceSession, inputs: readonly Data[]): Promise<Data[]> {
  const feeds = Object.fromEntries(session.inputNames.map((name, i) => [name, toTensor(inputs[i] as Data)]))
  const results = await session.run(feeds)
  return session.outputNames.map((name) => {
    const { type, dims, data } = results[name] as Tensor
    return { type, dims: [...dims], data: Array.isArray(data) ? [...data] : (data as Float32Array).slice() }
  })
}

function constantOf({ type, dims, data }: Data): Constant {
  const shape = dims.map(literal)
  if (data.length > 64 || Array.isArray(data)) return constant(shape)
  if (['int32', 'int64', 'bool'].includes(type))
    return integers(
      shape,
      [...(data as Int32Array)].map((value) => literal(Number(value))),
    ) as Constant
  const isFloat = ['float32', 'float64'].includes(type)
  return { ...constant(shape), numbers: isFloat ? [...(data as Float32Array)] : null }
}

export type Outcome =
  /** The interpreter does not claim that rows are independent. */
  | { readonly kind: 'no claim'; readonly reason: string }
  /** The runtime rejects a row run alone. */
  | { readonly kind: 'no row' }
  | { readonly kind: 'held' }
  | { readonly kind: 'refused together'; readonly message: string }
  | { readonly kind: 'broken'; readonly message: string }

/** `parts` contains each input of each row; an input without a layout is that of the first row for all. */
export async function holdClaim(options: {
  readonly bytes: Uint8Array
  readonly session: InferenceSession
  readonly layouts: readonly (Layout | null)[]
  readonly parts: readonly (readonly Data[])[]
}): Promise<Outcome> {
  const { bytes, session, layouts, parts } = options
  const model = parseModel(bytes)
  const interpreter = new Interpreter(model)
  const values = new Map<string, Value>()
  const rowCount = (parts[0] ?? []).length
  for (const [i, name] of session.inputNames.entries()) {
    const layout = layouts[i] ?? null
    const data = parts[i]?.[0] as Data
    const shape = data.dims.map(literal)
    values.set(
      name,
      layout === null
        ? constantOf(data)
        : rows(interpreter.sizes, shape, {
            axis: layout.axis,
            outer: literal(layout.outer),
            inner: literal(layout.inner),
          }),
    )
  }
  const claims = interpreter.run(model.graph, values)
  const names = session.outputNames.filter((name) =>
    ['rows', 'constant'].includes(claims.get(name)?.kind ?? ''),
  )
  if (names.length === 0) {
    const [first] = claims.values()
    return { kind: 'no claim', reason: first?.kind === 'mixed' ? first.cause.reason : (first?.kind ?? '') }
  }
  const alone: Data[][] = []
  try {
    for (let row = 0; row < rowCount; row++) {
      alone.push(
        await run(
          session,
          parts.map((part, i) => part[layouts[i] === null ? 0 : row] as Data),
        ),
      )
    }
  } catch {
    return { kind: 'no row' }
  }
  let all: Data[]
  try {
    all = await run(
      session,
      parts.map((part, i) => {
        const layout = layouts[i] ?? null
        return layout === null ? (part[0] as Data) : together(part, layout)
      }),
    )
  } catch (thrown) {
    return { kind: 'refused together', message: String(thrown) }
  }
  for (const [i, name] of session.outputNames.entries()) {
    const claim = claims.get(name) as Value
    if (claim.kind !== 'rows' && claim.kind !== 'constant') continue
    const output = all[i] as Data
    if (claim.shape !== null && claim.shape.length !== output.dims.length) {
      return { kind: 'broken', message: `${name}: rank ${output.dims.length}, said ${claim.shape.length}` }
    }
    for (const [axis, size] of (claim.shape ?? []).entries()) {
      const isBatch = claim.kind === 'rows' && axis === claim.axis
      if (!isBatch && size.unknowns.length === 0 && size.coefficient !== output.dims[axis]) {
        return {
          kind: 'broken',
          message: `${name}: shape [${output.dims}], said ${size.coefficient} for ${axis}`,
        }
      }
    }
    for (let row = 0; row < rowCount; row++) {
      const expected = alone[row]?.[i] as Data
      const got =
        claim.kind === 'constant'
          ? output
          : partOf(
              output,
              { axis: claim.axis, outer: claim.outer.coefficient, inner: claim.inner.coefficient },
              { row, rowCount },
            )
      if (!isSame(expected, got)) {
        return {
          kind: 'broken',
          message: `${name}: row ${row} [${expected.data.slice(0, 6)}] is [${got.data.slice(0, 6)}] together, shapes [${expected.dims}] and [${got.dims}]`,
        }
      }
    }
  }
  return { kind: 'held' }
}
