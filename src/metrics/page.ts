/**
 * A stats page: a small file in shared memory in which every worker counts, without messages and locks.
 *
 *   [ header, 8 cells ] [ slot 0 ] [ slot 1 ] ... [ slot N-1 ]
 *
 * A cell is a Float64 at a multiple of eight bytes, so a store is atomic on every CPU that Node supports. A
 * slot has one writer at a time. Its values survive the writer, also after SIGKILL, and the next writer
 * continues from them: counters never decrease. Each slot starts on a new cache line.
 *
 * The file is written completely before it is mapped: a hole in a full tmpfs would cause a SIGBUS later.
 */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { OnecopyError } from '../errors.js'
import { mapWritable } from '../mapping.js'

const CELL_BYTES = 8
const LINE_CELLS = 8
const HEADER_CELLS = 8
/** The bytes of its mantissa read 'STATS'; the value is arbitrary. */
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
   * Creates the file, filled with zeros, and maps it.
   * @throws OnecopyError SEGMENT_SPACE if it does not fit.
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
      throw new OnecopyError('SEGMENT_SPACE', `not enough space for ${zeros.byteLength} bytes at ${path}`, {
        cause: thrown,
      })
    }
  }

  /**
   * Maps a page that another process created.
   * @throws OnecopyError SEGMENT_INVALID if the page does not match the description.
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

  /** A live view of the cells of one slot. */
  slot(index: number): Float64Array<ArrayBuffer> {
    const { slots, cellsPerSlot } = this.reference
    if (!(index >= 0 && index < slots))
      throw new Error(`expected a slot from 0 to ${slots - 1}, got ${index}`)
    const from = HEADER_CELLS + index * strideOf(cellsPerSlot)
    return this.#cells.subarray(from, from + cellsPerSlot)
  }

  /** Live views of the cells of every slot. */
  allSlots(): Float64Array<ArrayBuffer>[] {
    return Array.from({ length: this.reference.slots }, (_, index) => this.slot(index))
  }

  /** The sum of one cell over all slots, which includes the counts of earlier workers. */
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
