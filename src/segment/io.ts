/** Reads and writes that complete or fail, because the kernel may process fewer bytes than requested. */

import { readSync, writeSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { OnecopyError } from '../errors.js'

export const CHUNK_BYTES = 4 * 1024 * 1024

/** Reads exactly `length` bytes at `position`, or throws SEGMENT_INVALID if the file ends earlier. */
export async function readExactly(
  file: FileHandle,
  length: number,
  position: number,
): Promise<Buffer<ArrayBuffer>> {
  const buffer = Buffer.alloc(length)
  await fill(buffer, file, position)
  return buffer
}

async function fill(buffer: Buffer, file: FileHandle, position: number): Promise<void> {
  const { length } = buffer
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) throw endsEarly(position + length, position + filled)
    filled += bytesRead
  }
}

function endsEarly(expectedBytes: number, fileBytes: number): OnecopyError {
  return new OnecopyError('SEGMENT_INVALID', `expected ${expectedBytes} bytes, the file ends at ${fileBytes}`)
}

/** Reads until `buffer` is full; returns it. @throws OnecopyError SEGMENT_INVALID if the file ends earlier. */
export function fillSync(buffer: Buffer, descriptor: number, position: number): Buffer {
  const { length } = buffer
  let filled = 0
  while (filled < length) {
    const bytesRead = readSync(descriptor, buffer, filled, length - filled, position + filled)
    if (bytesRead === 0) throw endsEarly(position + length, position + filled)
    filled += bytesRead
  }
  return buffer
}

export function writeFullySync(descriptor: number, bytes: Uint8Array, position: number): void {
  let written = 0
  while (written < bytes.byteLength) {
    written += writeSync(descriptor, bytes, written, bytes.byteLength - written, position + written)
  }
}

export async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0
  while (written < bytes.byteLength) {
    written += (await file.write(bytes, written, bytes.byteLength - written, position + written)).bytesWritten
  }
}

/**
 * The bytes from `from` to `to` in chunks with their positions. A chunk is valid until the next one is
 * requested; the next one is read meanwhile.
 */
export async function* chunksOf(
  file: FileHandle,
  from: number,
  to: number,
): AsyncGenerator<{ position: number; bytes: Buffer<ArrayBuffer> }> {
  if (from >= to) return
  // Two reused buffers, in turns: allocating memory costs as much as reading into it.
  const buffers = [from, from + CHUNK_BYTES].map((start) =>
    Buffer.alloc(Math.min(CHUNK_BYTES, Math.max(0, to - start))),
  )
  const read = async (position: number) => {
    const buffer = buffers[((position - from) / CHUNK_BYTES) % 2] as Buffer<ArrayBuffer>
    const bytes = buffer.subarray(0, Math.min(CHUNK_BYTES, to - position))
    await fill(bytes, file, position)
    return { position, bytes }
  }
  let reading = read(from)
  try {
    for (let position = from; position < to; position += CHUNK_BYTES) {
      const chunk = await reading
      if (position + CHUNK_BYTES < to) reading = read(position + CHUNK_BYTES)
      // The consumer may take long: it gets the error when it requests the next chunk.
      reading.catch(() => {})
      yield chunk
    }
  } finally {
    // The consumer may close the file.
    await reading.catch(() => {})
  }
}
