/** Small graphs and assertions about their proofs. */
import test from 'ava'
import { intsAttribute } from '../../../bench/models/chain.js'
import { type Proof, proveRowsApart } from '../../../src/batchability/proof/prove.js'
import { parseModel } from '../../../src/onnx/graph.js'
import type { AttributeProto, NodeProto, TensorProto, ValueInfoProto } from '../../../src/onnx/onnx_pb.js'
import { ELEMENT, graph, int64s, intAttribute, modelBytes, node, value } from '../../helpers/onnx-builder.js'

const { float } = ELEMENT

export interface Parts {
  readonly inputs?: ValueInfoProto[]
  readonly nodes: NodeProto[]
  readonly constants?: TensorProto[]
  readonly outputs?: string[]
  readonly opset?: number
}

export const x = (...dims: (number | string)[]) => value('x', float, ['n', ...dims])
export const image = x(3, 8, 8)
export const sequence = x('s', 4)

export function prove({ inputs = [x(4)], nodes, constants = [], outputs = ['y'], opset = 21 }: Parts): Proof {
  const model = parseModel(
    modelBytes(
      graph({
        input: inputs,
        output: outputs.map((name) => value(name, float, null)),
        node: nodes,
        initializer: constants,
      }),
      opset,
    ),
  )
  return proveRowsApart({ model, inputs: inputs.map(({ name }) => name), outputs })
}

export function proven(title: string, parts: Parts): void {
  test(`proven: ${title}`, (t) => {
    const proof = prove(parts)
    t.true(proof.isProven, proof.isProven ? '' : `${proof.node} (${proof.operator}) ${proof.reason}`)
  })
}

export function notProven(title: string, parts: Parts, why: RegExp): void {
  test(`not proven: ${title}`, (t) => {
    const proof = prove(parts)
    t.false(proof.isProven)
    if (proof.isProven) return
    t.regex(proof.reason, why)
    t.true(proof.remedy.length > 0)
  })
}

export const ints = (name: string, ...values: number[]) => int64s(name, [values.length], values)
export const int = (name: string, single: number) => int64s(name, [], [single])
export const attributes = (...attribute: AttributeProto[]) => ({ attribute })
export const axis = (one: number) => attributes(intAttribute('axis', one))
export const keep = (one: number) => intAttribute('keepdims', one)
export const microsoft = (...attribute: AttributeProto[]) => ({ attribute, domain: 'com.microsoft' })
export const ml = (...attribute: AttributeProto[]) => ({ attribute, domain: 'ai.onnx.ml' })
export const perm = (...order: number[]) => attributes(intsAttribute('perm', order))
/** The number of rows of x as `count`, a one-element vector. */
export const counted = node('Gather', ['shape', 'zero'], ['count'], axis(0))
export const shaped = [node('Shape', ['x'], ['shape']), counted]
export const zero = ints('zero', 0)
