/**
 * Interprets a graph node by node and determines what each tensor contains. Time is linear in the number of
 * nodes. Weights are never copied, and only read if they are small enough to be a shape.
 */
import { Attributes, functionDomain } from '../../onnx/attributes.js'
import type { GraphProto, ModelProto, NodeProto } from '../../onnx/onnx_pb.js'
import type { Operator } from './operator.js'
import { ofTensor } from './rules/shapes.js'
import { operatorName, ruleFor } from './rules.js'
import { Sizes } from './sizes.js'
import { type Cause, constant, type Mixed, Prevented, REMEDY, type Value } from './values.js'

/** Newest opset version for which the rules were written. */
const NEWEST_OPSET = 26

/**
 * Loop bodies are interpreted several times, and nested bodies many times. Real graphs stay far below this
 * limit.
 */
const MAX_STEPS = 2_000_000

class Scope {
  readonly #values = new Map<string, Value>()
  readonly #outer: Scope | null

  constructor(outer: Scope | null) {
    this.#outer = outer
  }

  get(name: string): Value | undefined {
    return this.#values.get(name) ?? this.#outer?.get(name)
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value)
  }
}

export class Interpreter {
  readonly sizes = new Sizes()
  readonly #versions: ReadonlyMap<string, number>
  /** Operators that the model itself defines. */
  readonly #own: ReadonlySet<string>
  #steps = 0

  constructor({ opsetImport, functions }: ModelProto) {
    this.#versions = new Map(
      opsetImport.map(({ domain, version }) => [domain === 'ai.onnx' ? '' : domain, Number(version)]),
    )
    this.#own = new Set(functions.map((one) => operatorName(functionDomain(one), one.name)))
  }

  /** The values of the graph's outputs for the given inputs. */
  run(graph: GraphProto, inputs: ReadonlyMap<string, Value>): Map<string, Value> {
    const scope = this.#interpret(graph, inputs, null)
    return new Map(graph.output.map(({ name }) => [name, this.#valueOf(name, scope)]))
  }

  #interpret(graph: GraphProto, inputs: ReadonlyMap<string, Value>, outer: Scope | null): Scope {
    const scope = new Scope(outer)
    for (const tensor of graph.initializer) scope.set(tensor.name, ofTensor(tensor))
    for (const [name, value] of inputs) scope.set(name, value)
    for (const node of graph.node) {
      const outputs = this.#outputsOf(node, scope)
      for (const [i, name] of node.output.entries()) if (name !== '') scope.set(name, outputs[i] as Value)
    }
    return scope
  }

  #valueOf(name: string, scope: Scope): Value {
    const value = scope.get(name)
    if (value !== undefined) return value
    const cause = {
      node: name,
      operator: 'value',
      reason: 'is not computed by the graph',
      remedy: REMEDY.export,
    }
    return { kind: 'mixed', cause }
  }

  #outputsOf(node: NodeProto, scope: Scope): Value[] {
    const inputs = node.input.map((name) => (name === '' ? null : this.#valueOf(name, scope)))
    const mixture = inputs.find((value): value is Mixed => value?.kind === 'mixed')
    const name = operatorName(node.domain, node.opType)
    const mixed = (reason: string, remedy: string): Mixed => {
      const cause: Cause = { node: node.name || (node.output[0] ?? ''), operator: name, reason, remedy }
      return { kind: 'mixed', cause }
    }
    if (mixture !== undefined) return node.output.map(() => mixture)
    if (this.#steps++ > MAX_STEPS)
      return node.output.map(() => mixed('exceeds the limit of the analysis', REMEDY.export))
    try {
      const known = this.#apply({ node, name, inputs: inputs as Operator['inputs'], scope })
      return node.output.map((_, i) => {
        return known[i] ?? mixed('has an output without a rule', REMEDY.export)
      })
    } catch (thrown) {
      if (!(thrown instanceof Prevented)) throw thrown
      const value = mixed(thrown.message, thrown.remedy)
      return node.output.map(() => value)
    }
  }

  #apply(call: {
    readonly node: NodeProto
    readonly name: string
    readonly inputs: Operator['inputs']
    readonly scope: Scope
  }): readonly Value[] {
    const { node, name, inputs, scope } = call
    const domain = node.domain === 'ai.onnx' ? '' : node.domain
    const version = this.#versions.get(domain) ?? 1
    const entry = this.#own.has(name) ? null : ruleFor(name, version)
    if (entry === null || (domain === '' && version > NEWEST_OPSET)) {
      throw new Prevented(`is an operator without a rule (${name}, version ${version})`, REMEDY.export)
    }
    const operator: Operator = {
      ...{ name, version, inputs, outputCount: node.output.length },
      attributes: new Attributes(node),
      sizes: this.sizes,
      interpret: (body, values) => {
        const bound = new Map(body.input.map((one, i) => [one.name, values[i] ?? constant(null)]))
        const inner = this.#interpret(body, bound, scope)
        return body.output.map((one) => this.#valueOf(one.name, inner))
      },
    }
    const result = entry.rule(operator)
    return Array.isArray(result) ? (result as readonly Value[]) : [result as Value]
  }
}
