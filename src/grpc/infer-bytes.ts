/**
 * Serialises the two messages that hold output tensors. The generated writer copies a tensor twice; this one
 * copies it once, into the message.
 */
import { create, toBinary } from '@bufbuild/protobuf'
import {
  type ModelInferResponse,
  ModelInferResponseSchema,
  type ModelStreamInferResponse,
  ModelStreamInferResponseSchema,
} from './schema/inference_pb.js'

const LENGTH_DELIMITED = 2
const CONTINUES = 0x80

/** The head of a field with `length` bytes. */
function fieldHead(number: number, length: number): Uint8Array {
  const head = [(number << 3) | LENGTH_DELIMITED]
  let rest = length
  for (; rest >= CONTINUES; rest = Math.floor(rest / CONTINUES)) head.push((rest % CONTINUES) | CONTINUES)
  head.push(rest)
  return Uint8Array.from(head)
}

function partsOf(response: ModelInferResponse): Uint8Array[] {
  const { rawOutputContents, ...others } = response
  const { number } = ModelInferResponseSchema.field.rawOutputContents
  return [
    toBinary(ModelInferResponseSchema, { ...others, rawOutputContents: [] }),
    ...rawOutputContents.flatMap((bytes) => [fieldHead(number, bytes.length), bytes]),
  ]
}

export function inferResponseBytes(response: ModelInferResponse): Buffer {
  return Buffer.concat(partsOf(response))
}

export function streamResponseBytes({ errorMessage, inferResponse }: ModelStreamInferResponse): Buffer {
  const rest = toBinary(
    ModelStreamInferResponseSchema,
    create(ModelStreamInferResponseSchema, { errorMessage }),
  )
  if (inferResponse === undefined) return Buffer.from(rest)
  const parts = partsOf(inferResponse)
  const { number } = ModelStreamInferResponseSchema.field.inferResponse
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  return Buffer.concat([rest, fieldHead(number, length), ...parts])
}
