/**
 * The binary formats: one line of JSON, then bytes. Molecules are sent to run.sh as big-endian lengths and
 * UTF-8. Numbers are returned, by run.sh and by POST /run, row-major and little-endian.
 */
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import type { Cell } from '../transform/transform.js'
import type { OutputType, Row } from './orient.js'
import { convertCell } from './orient.js'

const NEWLINE = 0x0a
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const LENGTH_BYTES = 4

/** Larger values round to infinity in 32 bits. */
const LARGEST_FLOAT = 2 ** 128 - 2 ** 103

/** NumPy names of the supported result types. */
const DTYPES = {
  '<f4': Float32Array,
  '<f8': Float64Array,
  '<i4': Int32Array,
  '<i8': BigInt64Array,
} as const

const InputHeaderSchema = z.object({ columns: z.array(z.string()), count: z.int().nonnegative() })
const OutputHeaderSchema = z.object({
  columns: z.array(z.string()),
  shape: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
  dtype: z.enum(Object.keys(DTYPES) as [keyof typeof DTYPES, ...(keyof typeof DTYPES)[]]),
})

function malformed(message: string): OnecopyError {
  return new OnecopyError('INPUT_INVALID', message)
}

/** The JSON line and the bytes after it. */
function splitHeader<Header>(
  bytes: Uint8Array,
  schema: z.ZodType<Header>,
): { header: Header; body: Uint8Array } {
  const end = bytes.indexOf(NEWLINE)
  if (end < 0) throw malformed('expected a line of JSON before the binary values, found none')
  try {
    const header = schema.parse(JSON.parse(Buffer.from(bytes.subarray(0, end)).toString('utf8')))
    return { header, body: bytes.subarray(end + 1) }
  } catch (thrown) {
    throw malformed(`expected a line of JSON before the binary values: ${messageOf(thrown)}`)
  }
}

/** Molecules in the input format of run.sh. */
export function encodeInputs(inputs: readonly string[], column = 'input'): Buffer {
  const header = Buffer.from(`${JSON.stringify({ columns: [column], count: inputs.length })}\n`)
  const parts = inputs.flatMap((input) => {
    const text = Buffer.from(input, 'utf8')
    const length = Buffer.alloc(LENGTH_BYTES)
    length.writeUInt32BE(text.length)
    return [length, text]
  })
  return Buffer.concat([header, ...parts])
}

/** @throws OnecopyError INPUT_INVALID. */
export function decodeInputs(bytes: Uint8Array): string[] {
  const { header, body } = splitHeader(bytes, InputHeaderSchema)
  const view = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const inputs: string[] = []
  let at = 0
  while (inputs.length < header.count) {
    const textAt = at + LENGTH_BYTES
    const end = textAt <= view.length ? textAt + view.readUInt32BE(at) : Number.POSITIVE_INFINITY
    if (end > view.length)
      throw malformed(`expected ${header.count} inputs, but the data ends in input ${inputs.length + 1}`)
    try {
      inputs.push(utf8.decode(view.subarray(textAt, end)))
    } catch {
      throw malformed(`expected UTF-8 in input ${inputs.length + 1}`)
    }
    at = end
  }
  if (at !== view.length)
    throw malformed(`expected ${header.count} inputs, but ${view.length - at} more bytes follow`)
  return inputs
}

function hostIsLittleEndian(): boolean {
  return new Uint8Array(new Uint16Array([1]).buffer)[0] === 1
}

/** Row-major values; null becomes NaN, or 0 for types without NaN, because the format has no null. */
function valueBytes(rows: readonly Row[], columns: number, isInteger: boolean): Buffer {
  if (!hostIsLittleEndian()) throw new Error('expected a little-endian machine')
  const values = isInteger ? new Int32Array(rows.length * columns) : new Float32Array(rows.length * columns)
  for (const [i, row] of rows.entries()) {
    for (let j = 0; j < columns; j++) {
      const cell = convertCell(row[j] ?? null, isInteger ? 'integer' : 'float')
      const value = cell === null ? (isInteger ? 0 : Number.NaN) : Number(cell)
      values[i * columns + j] = value
      // Typed arrays wrap integers and turn large floats into infinity.
      if (isInteger ? values[i * columns + j] !== value : Math.abs(value) > LARGEST_FLOAT)
        throw malformed(
          `row ${i + 1}, column ${j + 1}: ${value} exceeds the range of 32-bit ${isInteger ? 'integers' : 'floats'} in the binary format: use output_type=simple`,
        )
    }
  }
  return Buffer.from(values.buffer)
}

/** As Python's json.dumps writes it, by which some clients find the end of the line or compare. */
export function pythonJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).map(([key, inner]) => `${pythonJson(key)}: ${pythonJson(inner)}`)
    return `{${members.join(', ')}}`
  }
  // Only ASCII.
  return JSON.stringify(value).replace(
    /[\u007f-\uffff]/g,
    (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

export interface Table {
  readonly rows: readonly Row[]
  readonly columns: readonly string[]
}

function encode({ rows, columns }: Table, outputType: OutputType, namesKey: 'dims' | 'columns'): Buffer {
  if (outputType === 'string')
    throw malformed(
      'expected numbers for the binary format, but the model returns text: use output_type=simple',
    )
  const isInteger = outputType === 'integer'
  const header = {
    [namesKey]: columns,
    shape: [rows.length, columns.length],
    dtype: isInteger ? '<i4' : '<f4',
  }
  return Buffer.concat([Buffer.from(`${pythonJson(header)}\n`), valueBytes(rows, columns.length, isInteger)])
}

/**
 * The heavy response of POST /run.
 * @throws OnecopyError INPUT_INVALID for a model that returns text.
 */
export function encodeHeavy(table: Table, outputType: OutputType): Buffer {
  return encode(table, outputType, 'dims')
}

/**
 * The output of run.sh for a binary input. @throws OnecopyError INPUT_INVALID for a model that returns text.
 */
export function encodeOutputs(table: Table, outputType: OutputType): Buffer {
  return encode(table, outputType, 'columns')
}

/** @throws OnecopyError INPUT_INVALID. */
export function decodeOutputs(bytes: Uint8Array): { columns: string[]; rows: Row[] } {
  const { header, body } = splitHeader(bytes, OutputHeaderSchema)
  const [count, width] = header.shape
  const Values = DTYPES[header.dtype]
  const expected = count * width * Values.BYTES_PER_ELEMENT
  if (body.length !== expected) throw malformed(`expected ${expected} bytes of values, got ${body.length}`)
  const values = new Values(Uint8Array.from(body).buffer)
  const cell = (at: number): Cell => {
    const value = Number(values[at])
    return Number.isNaN(value) ? null : value
  }
  const rows = Array.from({ length: count }, (_, i) =>
    Array.from({ length: width }, (_, j) => cell(i * width + j)),
  )
  return { columns: header.columns, rows }
}
