/**
 * Proves that a graph keeps rows independent. It is an abstract interpretation that starts with inputs whose
 * first dimension is the batch, and must end with outputs whose first dimension is the batch. By definition,
 * a value of kind `rows` (values.ts) contains for each row the result of that row alone. So such a graph
 * gives the same result for a row regardless of the others. In doubt the answer is no.
 */
import type { GraphProto, ModelProto, ValueInfoProto } from '../../onnx/onnx_pb.js'
import { Interpreter } from './interpreter.js'
import { literal, literalOf, ONE, type Sizes } from './sizes.js'
import { type Cause, isWholeBatch, type Mixed, REMEDY, rows, type Value } from './values.js'

export type Proof =
  | { readonly isProven: true }
  | ({
      readonly isProven: false
      /** The output for which the proof failed. */
      readonly output: string
    } & Cause)

export interface ProofOptions {
  /** The graph that is loaded. */
  readonly model: ModelProto & { graph: GraphProto }
  /** Names of the inputs in requests. */
  readonly inputs: readonly string[]
  /** Names of the served outputs. */
  readonly outputs: readonly string[]
}

function mixed(operator: string, node: string, reason: string, remedy: string): Mixed {
  return { kind: 'mixed', cause: { node, operator, reason, remedy } }
}

/**
 * The runtime checks the rank and fixed sizes of inputs. A dimension name proves nothing, so each variable
 * dimension is an unknown.
 */
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

/** Why the output is not a batch of rows; null if it is. */
function objection(value: Value | undefined, name: string): Cause | null {
  const output = { node: name, operator: 'output' }
  if (value === undefined)
    return { ...output, reason: 'is not an output of the graph', remedy: REMEDY.export }
  if (value.kind === 'mixed') return value.cause
  if (value.kind === 'rows') {
    if (value.axis === 0 && isWholeBatch(value)) return null
    return {
      ...output,
      reason: 'has the batch in a dimension other than the first',
      remedy: REMEDY.batchFirst,
    }
  }
  const reason = {
    constant: 'is independent of the rows and has one value for any number of them',
    count: 'depends on the number of rows',
    place: "contains a row's position in the batch",
  }[value.kind]
  return { ...output, reason, remedy: 'remove this output from the model' }
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
            'can be omitted from a request',
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
