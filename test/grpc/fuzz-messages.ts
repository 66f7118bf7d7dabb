/** Valid messages to every method, and mutations of them that a seed decides. */
import { create, type DescMethod, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { GRPCInferenceService, type ModelInferRequestSchema } from '../../src/grpc/schema/inference_pb.js'
import { addRequest } from '../helpers/grpc-client.js'

const { method } = GRPCInferenceService

function text(value: string) {
  return { parameterChoice: { case: 'stringParam', value } } as const
}

function integer(value: number) {
  return { parameterChoice: { case: 'int64Param', value: BigInt(value) } } as const
}

const X = { name: 'x', datatype: 'FP32', shape: [2n, 2n] }
const WORDS = { name: 'x', datatype: 'BYTES', shape: [2n] }
const REGION = { shared_memory_region: text('r'), shared_memory_byte_size: integer(16) }

/**
 * Every way in which tensors may arrive, and every parameter. The server has the models `add` and `words`.
 */
const INFER: readonly MessageInitShape<typeof ModelInferRequestSchema>[] = [
  addRequest([1, 2, 3, 4], { id: 'a' }),
  addRequest([1, 2, 3, 4], {
    outputs: [{ name: 'y', parameters: { classification: integer(1) } }],
    parameters: { priority: integer(1), timeout: integer(20_000_000), custom: text('é') },
  }),
  { modelName: 'add', modelVersion: '1', inputs: [{ ...X, contents: { fp32Contents: [1, 2, 3, 4] } }] },
  {
    modelName: 'words',
    inputs: [{ ...WORDS, contents: { bytesContents: [Buffer.from('é'), Buffer.from('')] } }],
  },
  { modelName: 'words', inputs: [WORDS], rawInputContents: [Buffer.from([2, 0, 0, 0, 97, 98, 0, 0, 0, 0])] },
  {
    modelName: 'add',
    inputs: [{ ...X, parameters: REGION }],
    outputs: [{ name: 'y', parameters: REGION }],
  },
]

const OTHERS: Partial<Record<keyof typeof method, object>> = {
  systemSharedMemoryRegister: { name: 'r', key: '/no-such-region', offset: 0n, byteSize: 16n },
  repositoryIndex: { repositoryName: '', ready: true },
  repositoryModelLoad: { modelName: 'add', parameters: { config: text('{}') } },
  repositoryModelUnload: { modelName: 'add' },
  traceSetting: { modelName: 'add', settings: { trace_level: { value: ['TIMESTAMPS'] } } },
  logSettings: { settings: { log_verbose_level: { parameterChoice: { case: 'uint32Param', value: 1 } } } },
}

export interface FuzzSeed {
  readonly method: DescMethod
  readonly bytes: Uint8Array
}

function seedOf(one: DescMethod, message: object): FuzzSeed {
  return { method: one, bytes: toBinary(one.input, create(one.input, message as never)) }
}

export const INFER_SEEDS = INFER.map((message) => seedOf(method.modelInfer, message))

export const OTHER_SEEDS = Object.entries(method)
  .filter(([, { methodKind }]) => methodKind === 'unary')
  .map(([name, one]) => {
    const named = one.input.field.name === undefined ? {} : { name: 'add' }
    return seedOf(one, OTHERS[name as keyof typeof method] ?? named)
  })

/** Numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

export function pick<T>(list: readonly T[], random: () => number): T {
  return list[Math.floor(random() * list.length)] as T
}

/**
 * Half of the messages have one byte changed, so that many are still well-formed. The others have one to four
 * changes: another byte, an end cut off, a piece repeated, a byte added, a large number as a length.
 */
export function mutated(bytes: Uint8Array, random: () => number): Buffer {
  let result = Buffer.from(bytes)
  const at = () => Math.floor(random() * result.length)
  const isMild = random() < 0.5
  for (let changes = isMild ? 0 : Math.floor(random() * 4); changes >= 0; changes--) {
    const kind = isMild ? 0 : Math.floor(random() * 5)
    if (kind === 0 && result.length > 0) result[at()] = Math.floor(random() * 256)
    else if (kind === 1) result = result.subarray(0, at())
    else if (kind === 2) result = Buffer.concat([result, Buffer.from(result.subarray(at()))])
    else {
      const where = at()
      const added = kind === 3 ? [Math.floor(random() * 256)] : [0xff, 0xff, 0xff, 0xff, 0x7f]
      result = Buffer.concat([result.subarray(0, where), Buffer.from(added), result.subarray(where)])
    }
  }
  return result
}
