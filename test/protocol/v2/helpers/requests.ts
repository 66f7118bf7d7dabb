import type { ExecutionContext } from 'ava'
import fc from 'fast-check'
import { type ErrorCode, OnecopyError } from '../../../../src/errors.js'
import { type ExpectedData, newStorage } from '../../../../src/protocol/v2/datatypes.js'
import { decodeInferRequest, type InferRequest, type ModelSpec } from '../../../../src/protocol/v2/request.js'
import {
  DATATYPES,
  type Datatype,
  elementCount,
  type NumericData,
  type TensorData,
  type TensorSpec,
} from '../../../../src/tensor.js'

export const LIMITS = { jsonDepth: 64, maxTensors: 16 }

export const ALL_DATATYPES = Object.keys(DATATYPES) as Datatype[]

export const JSON_DATATYPES = ALL_DATATYPES.filter((datatype) => datatype !== 'FP16' && datatype !== 'BF16')

export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text)
}

export function joined(...parts: (string | Uint8Array)[]): Uint8Array<ArrayBuffer> {
  const bytes = parts.map((part) => (typeof part === 'string' ? utf8(part) : part))
  const all = new Uint8Array(bytes.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of bytes) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** A model with one output `y`, FP32. */
export function modelOf(...inputs: TensorSpec[]): ModelSpec {
  return { name: 'm', version: '1', inputs, outputs: [{ name: 'y', datatype: 'FP32', shape: [-1] }] }
}

/** A model with one input `x`. */
export function modelOfX(datatype: Datatype, shape: readonly number[] | null): ModelSpec {
  return modelOf({ name: 'x', datatype, shape })
}

export interface RequestOptions {
  jsonBytes?: number | null
  limits?: { jsonDepth: number; maxTensors: number }
}

export function decode(
  body: string | Uint8Array<ArrayBuffer>,
  model: ModelSpec,
  { jsonBytes = null, limits = LIMITS }: RequestOptions = {},
): InferRequest {
  return decodeInferRequest({ body: typeof body === 'string' ? utf8(body) : body, jsonBytes, model, limits })
}

export function expectedX(datatype: Datatype, shape: readonly number[]): ExpectedData {
  return { label: 'input "x"', datatype, shape, count: elementCount(shape) }
}

/** The action is refused with this code, and the message has all of these words in it. */
export function refused(t: ExecutionContext, code: ErrorCode, words: string[], action: () => unknown): void {
  const error = t.throws(action, { instanceOf: OnecopyError })
  t.is(error?.code, code, error?.message)
  for (const word of words) t.true(error?.message.includes(word), `${word} in: ${error?.message}`)
}

/** The same elements bit for bit, except that a NaN is any NaN. */
export function sameElements(a: TensorData, b: TensorData): boolean {
  return (
    a.length === b.length &&
    a.constructor === b.constructor &&
    Array.from<unknown>(a).every((element, i) => Object.is(element, b[i]))
  )
}

/** Any elements of a datatype: numbers from random bits, so NaN, infinities and -0 are among them; no NUL in text. */
export function arbitraryData(datatype: Datatype): fc.Arbitrary<TensorData> {
  if (datatype === 'BYTES') {
    const text = fc.string({ unit: 'binary' }).map((one) => one.replaceAll('\0', 'n'))
    return fc.array(text, { maxLength: 20 })
  }
  if (datatype === 'BOOL')
    return fc.array(fc.boolean(), { maxLength: 20 }).map((list) => Uint8Array.from(list, Number))
  if (datatype === 'FP32')
    return fc.array(fc.float(), { maxLength: 20 }).map((list) => Float32Array.from(list))
  if (datatype === 'FP64')
    return fc.array(fc.double(), { maxLength: 20 }).map((list) => Float64Array.from(list))
  return fc.array(fc.uint8Array({ minLength: 8, maxLength: 8 }), { maxLength: 20 }).map((list) => {
    const data: NumericData = newStorage(datatype, list.length)
    const bytes = new Uint8Array(data.buffer)
    list.forEach((element, i) => {
      bytes.set(element.subarray(0, data.BYTES_PER_ELEMENT), i * data.BYTES_PER_ELEMENT)
    })
    return data
  })
}
