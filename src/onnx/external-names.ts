/**
 * Finds the names of a model's external data files without parsing the model. Weights inside the file are
 * skipped, so a model of any size needs only a few reads. That is cheap enough for a process that only
 * watches files.
 *
 * It walks the protobuf fields that lead to tensors, and reads only the external data of a tensor. Sources:
 * onnx.proto in this folder; https://protobuf.dev/programming-guides/encoding.
 */
import { constants, type FileHandle, open } from 'node:fs/promises'

type Message = 'model' | 'function' | 'graph' | 'node' | 'attribute' | 'sparse' | 'tensor' | 'entry'

/** Maps field numbers to the message types they contain. Other fields are skipped. */
const INNER: Record<Message, Readonly<Record<number, Message>>> = {
  model: { 7: 'graph', 25: 'function' },
  function: { 7: 'node', 11: 'attribute' },
  graph: { 1: 'node', 5: 'tensor', 15: 'sparse' },
  node: { 5: 'attribute' },
  attribute: { 5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse' },
  sparse: { 1: 'tensor', 2: 'tensor' },
  tensor: { 13: 'entry' },
  /** StringStringEntryProto: 1 is the key, 2 the value. */
  entry: {},
}
const KEY_FIELD = 1
const VALUE_FIELD = 2

const WINDOW_BYTES = 64 * 1024
/** A tag and a length, each a varint of at most ten bytes. */
const MAX_FIELD_HEAD_BYTES = 20
/** Maximum length of a path. */
const MAX_NAME_BYTES = 4096
const MAX_NAMES = 10_000
/** The usual nesting limit of protobuf parsers. */
const MAX_DEPTH = 100

/** Reads a file sequentially in windows. */
class Reader {
  readonly #file: FileHandle
  readonly sizeBytes: number
  #window: Buffer = Buffer.alloc(0)
  #windowAt = 0
  position = 0

  constructor(file: FileHandle, sizeBytes: number) {
    this.#file = file
    this.sizeBytes = sizeBytes
  }

  /** Whether `bytes` bytes, or all remaining ones, are in the window. */
  has(bytes: number): boolean {
    const end = Math.min(this.position + bytes, this.sizeBytes)
    return this.position >= this.#windowAt && end <= this.#windowAt + this.#window.length
  }

  async fetch(): Promise<void> {
    const buffer = Buffer.alloc(Math.min(WINDOW_BYTES, this.sizeBytes - this.position))
    const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.position)
    if (bytesRead === 0) throw new Error('the file was truncated')
    this.#window = buffer.subarray(0, bytesRead)
    this.#windowAt = this.position
  }

  #byte(): number {
    const byte = this.#window[this.position - this.#windowAt]
    if (byte === undefined) throw new Error('expected another byte')
    this.position++
    return byte
  }

  /** Exact below 2^53, which exceeds all tags and lengths in a file. */
  varint(): number {
    let value = 0
    for (let factor = 1, i = 0; i < 10; i++, factor *= 128) {
      const byte = this.#byte()
      value += (byte & 0x7f) * factor
      if (byte < 0x80) return value
    }
    throw new Error('expected a varint')
  }

  text(bytes: number): string {
    const from = this.position - this.#windowAt
    this.position += bytes
    return this.#window.toString('utf8', from, from + bytes)
  }
}

interface Open {
  readonly message: Message
  readonly end: number
  key: string
  value: string
}

async function walk(reader: Reader, names: Set<string>): Promise<void> {
  const open: Open[] = [{ message: 'model', end: reader.sizeBytes, key: '', value: '' }]
  while (names.size < MAX_NAMES) {
    const current = open.at(-1) as Open
    if (reader.position >= current.end) {
      if (current.message === 'entry' && current.key === 'location') names.add(current.value)
      open.pop()
      if (open.length === 0) return
      continue
    }
    while (!reader.has(MAX_FIELD_HEAD_BYTES)) await reader.fetch()
    const tag = reader.varint()
    const field = Math.floor(tag / 8)
    const wireType = tag % 8
    if (wireType === 0) reader.varint()
    else if (wireType === 1) reader.position += 8
    else if (wireType === 5) reader.position += 4
    else if (wireType === 2) {
      const bytes = reader.varint()
      const end = reader.position + bytes
      const inner = INNER[current.message][field]
      if (end > current.end || open.length > MAX_DEPTH) throw new Error('expected a message inside another')
      if (inner !== undefined) open.push({ message: inner, end, key: '', value: '' })
      else if (
        current.message === 'entry' &&
        bytes <= MAX_NAME_BYTES &&
        (field === KEY_FIELD || field === VALUE_FIELD)
      ) {
        while (!reader.has(bytes)) await reader.fetch()
        current[field === KEY_FIELD ? 'key' : 'value'] = reader.text(bytes)
      } else reader.position = end
    } else throw new Error(`expected a field, got wire type ${wireType}`)
  }
}

/**
 * File names as spelled in the model, sorted. For a file that is not a model or is incomplete: the names
 * before the error.
 */
export async function readExternalNames(path: string): Promise<string[]> {
  const names = new Set<string>()
  try {
    // If a pipe has replaced the file, opening must not block.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const found = await file.stat()
    if (found.isFile()) await walk(new Reader(file, found.size), names)
  } catch {
    // Compilation reports what is wrong with the model.
  }
  return [...names].sort()
}
