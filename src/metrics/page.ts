/**
 * A stats page: a small file in shared memory in which every worker counts, with no message and no lock.
 *
 *   [ header, 8 cells ] [ slot 0 ] [ slot 1 ] ... [ slot N-1 ]
 *
 * A cell is a Float64 at a multiple of eight bytes, so a store is whole on every CPU that Node runs on. A slot
 * has one writer at a time. What is in a slot outlives its writer, SIGKILL included, and the next
 * writer goes on from there: counters never go down. Slots start on cache lines of their own.
 *
 * The file is written whole before it is mapped: a hole in a full tmpfs would be a SIGBUS later.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { OnecopyError } from '../errors.js'
import { mapWritable } from '../mapping.js'

const CELL_BYTES = 8
const LINE_CELLS = 8
const HEADER_CELLS = 8
/** Reads 'STATS' in the bytes of a double's mantissa; any other number would do. */
const MAGIC = 0x5354415453
const FORMAT_VERSION = 1

/** Which page it is; see page-reference.ts for its schema. */
export interface StatsPageReference {
  path: string
  slots: number
  cellsPerSlot: number
}

function strideOf(cellsPerSlot: number): number {
  return Math.ceil(cellsPerSlot / LINE_CELLS) * LINE_CELLS
}

function cellCount({ slots, cellsPerSlot }: Omit<StatsPageReference, 'path'>): number {
  return HEADER_CELLS + slots * strideOf(cellsPerSlot)
}

function asCells(bytes: Uint8Array<ArrayBuffer>): Float64Array<ArrayBuffer> {
  return new Float64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / CELL_BYTES)
}

function refuse(path: string, message: string): OnecopyError {
  return new OnecopyError('SEGMENT_INVALID', `stats page ${path}: ${message}`)
}

export class StatsPage {
  readonly reference: StatsPageReference
  readonly #cells: Float64Array<ArrayBuffer>

  private constructor(reference: StatsPageReference, cells: Float64Array<ArrayBuffer>) {
    this.reference = reference
    this.#cells = cells
  }

  /**
   * Makes the file, all zeros, and maps it.
   * @throws OnecopyError SEGMENT_SPACE when it does not fit.
   */
  static async create(reference: StatsPageReference): Promise<StatsPage> {
    const { path, slots, cellsPerSlot } = reference
    const zeros = new Float64Array(cellCount(reference))
    zeros.set([MAGIC, FORMAT_VERSION, slots, cellsPerSlot])
    try {
      const { O_CREAT, O_EXCL, O_NOFOLLOW, O_RDWR } = constants
      const file = await open(path, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW, 0o600)
      try {
        await file.writeFile(new Uint8Array(zeros.buffer))
        return new StatsPage(reference, asCells(mapWritable(file.fd, zeros.byteLength)))
      } finally {
        await file.close()
      }
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown
      throw new OnecopyError('SEGMENT_SPACE', `no room for ${zeros.byteLength} bytes at ${path}`, {
        cause: thrown,
      })
    }
  }

  /**
   * Maps a page that another process made.
   * @throws OnecopyError SEGMENT_INVALID when it is not the page described.
   */
  static async open(reference: StatsPageReference): Promise<StatsPage> {
    const { path, slots, cellsPerSlot } = reference
    const file = await open(path, constants.O_RDWR | constants.O_NOFOLLOW).catch((thrown) => {
      throw refuse(path, `cannot be opened (${(thrown as NodeJS.ErrnoException).code})`)
    })
    try {
      const stat = await file.stat()
      const bytes = cellCount(reference) * CELL_BYTES
      if (!stat.isFile() || stat.size !== bytes)
        throw refuse(path, `expected a file of ${bytes} bytes, got ${stat.size}`)
      const cells = asCells(mapWritable(file.fd, bytes))
      const expected = [MAGIC, FORMAT_VERSION, slots, cellsPerSlot]
      if (expected.some((value, i) => cells[i] !== value))
        throw refuse(path, `expected a header of ${expected}, got ${cells.subarray(0, expected.length)}`)
      return new StatsPage(reference, cells)
    } finally {
      await file.close()
    }
  }

  /** The cells of one slot: a live view. */
  slot(index: number): Float64Array<ArrayBuffer> {
    const { slots, cellsPerSlot } = this.reference
    if (!(index >= 0 && index < slots))
      throw new Error(`expected a slot from 0 to ${slots - 1}, got ${index}`)
    const from = HEADER_CELLS + index * strideOf(cellsPerSlot)
    return this.#cells.subarray(from, from + cellsPerSlot)
  }

  /** The cells of every slot: live views. */
  allSlots(): Float64Array<ArrayBuffer>[] {
    return Array.from({ length: this.reference.slots }, (_, index) => this.slot(index))
  }

  /** One cell, added up over all slots: what every worker counts, and what those before them did. */
  total(cell: number): number {
    return this.#over(cell, (sum, value) => sum + value)
  }

  /** The largest value of one cell in any slot. */
  latest(cell: number): number {
    return this.#over(cell, Math.max)
  }

  #over(cell: number, join: (sofar: number, value: number) => number): number {
    const { slots, cellsPerSlot } = this.reference
    const stride = strideOf(cellsPerSlot)
    let result = 0
    for (let slot = 0; slot < slots; slot++)
      result = join(result, this.#cells[HEADER_CELLS + slot * stride + cell] as number)
    return result
  }
}
