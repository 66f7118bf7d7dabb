/**
 * Handles outputs declared by name only. The runtime infers their types; they are written into the graph so
 * that later steps can read them there.
 */
import { create } from '@bufbuild/protobuf'
import { messageOf, OnecopyError } from '../errors.js'
import { parseModel, serializeModel } from '../onnx/graph.js'
import {
  type GraphProto,
  type ModelProto,
  NodeProtoSchema,
  TypeProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from '../onnx/onnx_pb.js'
import { elementTypeOf, isUndeclared } from '../repository/interface.js'
import { describeOutputs, type OutputDescription } from '../runtime/session.js'

type Model = ModelProto & { graph: GraphProto }

async function describe(model: Model, folder: string): Promise<OutputDescription[]> {
  try {
    return await describeOutputs({ bytes: serializeModel(model), folder })
  } catch (thrown) {
    const number = /Unsupported data type: (\d+)/.exec(messageOf(thrown))?.[1]
    if (number === undefined) throw thrown
    throw new OnecopyError(
      'MODEL_UNSUPPORTED',
      `an output without a declared type has element type ${number}, which the runtime's binding cannot report: declare its type`,
    )
  }
}

const RANK = '/rank'

/**
 * The binding reports rank 0 for tensors of unknown rank. The length of a Shape node's output gives the rank.
 */
async function ranksOf(
  model: Model,
  names: readonly string[],
  folder: string,
): Promise<Map<string, number | null>> {
  const copy = parseModel(serializeModel(model))
  copy.graph.node.push(
    ...names.map((name) =>
      create(NodeProtoSchema, { opType: 'Shape', input: [name], output: [`${name}${RANK}`] }),
    ),
  )
  copy.graph.output = names.map((name) => create(ValueInfoProtoSchema, { name: `${name}${RANK}` }))
  const described = await describe(copy, folder)
  return new Map(
    described.map(({ name, shape }) => [
      name.slice(0, -RANK.length),
      typeof shape?.[0] === 'number' ? shape[0] : null,
    ]),
  )
}

function declare(value: ValueInfoProto, { datatype, shape }: OutputDescription, isScalar: boolean): void {
  const dim = shape?.map((size) => ({
    value:
      typeof size === 'number'
        ? { case: 'dimValue' as const, value: BigInt(size) }
        : { case: 'dimParam' as const, value: size },
  }))
  const hasShape = dim !== undefined && (dim.length > 0 || isScalar)
  value.type = create(TypeProtoSchema, {
    value: {
      case: 'tensorType',
      value: { elemType: elementTypeOf(datatype as string), ...(hasShape ? { shape: { dim } } : {}) },
    },
  })
}

/**
 * Declares the types in place; outputs that are not tensors stay unchanged.
 * @returns Whether any output was undeclared.
 * @throws The runtime's error for a model that it cannot load.
 */
export async function declareOutputs(model: Model, folder: string): Promise<boolean> {
  const undeclared = model.graph.output.filter(isUndeclared)
  if (undeclared.length === 0) return false
  const described = await describe(model, folder)
  const byName = new Map(described.map((one) => [one.name, one]))
  const rankless = undeclared
    .map(({ name }) => name)
    .filter((name) => byName.get(name)?.datatype != null && byName.get(name)?.shape?.length === 0)
  const ranks =
    rankless.length === 0 ? new Map<string, number | null>() : await ranksOf(model, rankless, folder)
  for (const value of undeclared) {
    const one = byName.get(value.name)
    if (one !== undefined && one.datatype !== null) declare(value, one, ranks.get(value.name) === 0)
  }
  return true
}
