/**
 * Whether a graph keeps rows apart: an abstract interpretation that starts with inputs whose first dimension is the batch, and
 * must end with outputs whose first dimension is the batch. What values.ts calls rows is by definition what each row gives
 * alone, so that such a graph answers a row the same whatever stands beside it. In doubt the answer is no.
 */
import type { GraphProto, ModelProto, ValueInfoProto } from '../../onnx/onnx_pb.js'
import { Interpreter } from './interpreter.js'
import { literal, literalOf, ONE, type Sizes } from './sizes.js'
import { type Cause, isWholeBatch, type Mixed, REMEDY, rows, type Value } from './values.js'

export type Proof =
  | { readonly isProven: true }
  | ({
      readonly isProven: false
      /** The output that it prevents. */
      readonly output: string
    } & Cause)

export interface ProofOptions {
  /** The graph that is loaded. */
  readonly model: ModelProto & { graph: GraphProto }
  /** Names of inputs that requests bring. */
  readonly inputs: readonly string[]
  /** Names of outputs that are served. */
  readonly outputs: readonly string[]
}

function mixed(operator: string, node: string, reason: string, remedy: string): Mixed {
  return { kind: 'mixed', cause: { node, operator, reason, remedy } }
}

/** The runtime checks rank and fixed sizes of what it is fed; a name of a dimension proves nothing, so each is an unknown. */
function inputValue(sizes: Sizes, { name, type }: ValueInfoProto): Value {
  const shape = type?.value.case === 'tensorType' ? type.value.value.shape : undefined
  const dimensions = shape?.dim.map(({ value }) => {
    const size = value.case === 'dimValue' ? Number(value.value) : -1
    return size >= 0 ? literal(size) : sizes.fresh({ text: value.case === 'dimParam' ? value.value : '?' })
  })
  const first = dimensions?.[0]
  if (dimensions === undefined || first === undefined || literalOf(first) !== null) {
    return mixed('input', name, 'has no first dimension that can vary', REMEDY.declare)
  }
  return rows(sizes, dimensions, { axis: 0, outer: ONE, inner: ONE })
}

/** Null where the output is a batch of rows; else why not. */
function objection(value: Value | undefined, name: string): Cause | null {
  const output = { node: name, operator: 'output' }
  if (value === undefined)
    return { ...output, reason: 'is not an output of the graph', remedy: REMEDY.export }
  if (value.kind === 'mixed') return value.cause
  if (value.kind === 'rows') {
    if (value.axis === 0 && isWholeBatch(value)) return null
    return {
      ...output,
      reason: 'has the batch elsewhere than in its first dimension',
      remedy: REMEDY.batchFirst,
    }
  }
  const reason = {
    constant: 'holds nothing of the rows, and one value whatever their number',
    count: 'says how many rows there are',
    place: "says a row's place in the batch",
  }[value.kind]
  return { ...output, reason, remedy: 'leave this output out of the model' }
}

export function proveRowsApart({ model, inputs, outputs }: ProofOptions): Proof {
  const { graph } = model
  const interpreter = new Interpreter(model)
  const initialized = new Set(graph.initializer.map(({ name }) => name))
  const brought = new Set(inputs)
  const values = new Map<string, Value>()
  for (const input of graph.input) {
    const hasDefault = initialized.has(input.name)
    if (hasDefault && !brought.has(input.name)) continue
    values.set(
      input.name,
      hasDefault
        ? mixed(
            'input',
            input.name,
            'may be left out of a request',
            'make it an input without a default, or a constant',
          )
        : inputValue(interpreter.sizes, input),
    )
  }
  const found = interpreter.run(graph, values)
  for (const name of outputs) {
    const cause = objection(found.get(name), name)
    if (cause !== null) return { isProven: false, output: name, ...cause }
  }
  return { isProven: true }
}
