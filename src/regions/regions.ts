/**
 * The shared memory regions that clients have registered, by name.
 *
 * A registration is a small file in the folder of the server. It is written completely and then linked to its
 * name. So every worker sees it immediately, including workers that start later, and of two concurrent
 * registrations of one name only one succeeds. Registrations disappear with the server. No process keeps them
 * in its memory.
 */
import { createHash, randomUUID } from 'node:crypto'
import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import { checkObject, type ObjectRange, readObject, writeObject } from './object.js'

/** Registrations are files in memory; the limit keeps a client from filling it. */
const MAX_REGIONS = 4096
const MAX_NAME_CHARACTERS = 1024
const SUFFIX = '.json'

const RegionSchema = z.object({
  name: z.string(),
  key: z.string(),
  offsetBytes: z.int().nonnegative(),
  bytes: z.int().positive(),
})

/** A named range of a shared memory object. */
export type Region = z.infer<typeof RegionSchema>

/** The range of a tensor within a region. */
export interface RegionRange {
  readonly region: string
  readonly offsetBytes: number
  readonly bytes: number
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('REQUEST_INVALID', message)
}

function shown(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 80)}…` : name)
}

/** Maps a region name of any length and content to a file name. */
function fileName(region: string): string {
  return `${createHash('sha256').update(region).digest('hex')}${SUFFIX}`
}

function isMissing(thrown: unknown): boolean {
  return (thrown as NodeJS.ErrnoException).code === 'ENOENT'
}

export class Regions {
  readonly #folder: string

  /** `folder` is shared by all workers of a server. It is created on demand inside an existing folder. */
  constructor(folder: string) {
    this.#folder = folder
  }

  #fileNames(): string[] {
    try {
      return readdirSync(this.#folder).filter((name) => name.endsWith(SUFFIX))
    } catch (thrown) {
      if (isMissing(thrown)) return []
      throw thrown
    }
  }

  #read(file: string): Region | null {
    try {
      return RegionSchema.parse(JSON.parse(readFileSync(join(this.#folder, file), 'utf8')))
    } catch (thrown) {
      if (isMissing(thrown)) return null
      throw thrown
    }
  }

  /** All regions, sorted by name. */
  list(): Region[] {
    return this.#fileNames()
      .flatMap((file) => this.#read(file) ?? [])
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  find(name: string): Region | null {
    return this.#read(fileName(name))
  }

  /**
   * @throws OnecopyError REQUEST_INVALID (the name is taken or too long, or the object does not contain the
   *   range), SEGMENT_SPACE, SHUTTING_DOWN.
   */
  register(region: Region): void {
    if (region.name.length > MAX_NAME_CHARACTERS)
      throw invalid(`expected a region name of at most ${MAX_NAME_CHARACTERS} characters`)
    const endBytes = region.offsetBytes + region.bytes
    if (!Number.isSafeInteger(endBytes)) throw invalid('offset and byte_size are too large')
    if (this.#fileNames().length >= MAX_REGIONS)
      throw invalid(`${MAX_REGIONS} regions are already registered, the maximum`)
    checkObject(region.key, endBytes)
    this.#makeFolder()
    const whole = join(this.#folder, `.${randomUUID()}`)
    try {
      writeFileSync(whole, JSON.stringify(region), { flag: 'wx', mode: 0o600 })
      linkSync(whole, join(this.#folder, fileName(region.name)))
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      if (code === 'ENOSPC')
        throw new OnecopyError('SEGMENT_SPACE', 'not enough shared memory to register another region')
      if (code !== 'EEXIST') throw thrown
      throw invalid(`shared memory region ${shown(region.name)} is already registered: unregister it first`)
    } finally {
      rmSync(whole, { force: true })
    }
  }

  #makeFolder(): void {
    try {
      mkdirSync(this.#folder, { mode: 0o700 })
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      // The server removes its folder when it shuts down.
      if (code === 'ENOENT') throw new OnecopyError('SHUTTING_DOWN', 'the server is shutting down')
      if (code !== 'EEXIST') throw thrown
    }
  }

  /** Unregisters one region, or all with null. An unknown name is not an error. */
  unregister(name: string | null): void {
    const files = name === null ? this.#fileNames() : [fileName(name)]
    for (const file of files) rmSync(join(this.#folder, file), { force: true })
  }

  /** Maps a range of a region to a range of its object. */
  #place({ region: name, offsetBytes, bytes }: RegionRange): Omit<ObjectRange, 'bytes'> {
    const region = this.find(name)
    if (region === null) throw invalid(`shared memory region ${shown(name)} is not registered`)
    if (offsetBytes + bytes > region.bytes) {
      const wanted = `${bytes} bytes at offset ${offsetBytes}`
      throw invalid(`shared memory region ${shown(name)} has ${region.bytes} bytes, not ${wanted}`)
    }
    return { key: region.key, offsetBytes: region.offsetBytes + offsetBytes }
  }

  /** @throws OnecopyError REQUEST_INVALID. */
  read(range: RegionRange): Uint8Array<ArrayBuffer> {
    return readObject({ ...this.#place(range), bytes: range.bytes })
  }

  /** @throws OnecopyError REQUEST_INVALID. */
  write(range: RegionRange, bytes: Uint8Array): void {
    writeObject(this.#place({ ...range, bytes: bytes.length }), bytes)
  }
}
