/**
 * The regions of shared memory that clients have registered with this server, by name.
 *
 * A registration is a small file in the server's folder, made whole and then linked to its name: so every
 * worker sees it at once, those that start later too, two that register the same name cannot both succeed, and it
 * goes away with the server. Nothing is kept in the memory of a process.
 */
import { createHash, randomUUID } from 'node:crypto'
import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { OnecopyError } from '../errors.js'
import { checkObject, type ObjectRange, readObject, writeObject } from './object.js'

/** They are files in memory: a client must not be able to fill it with them. */
const MAX_REGIONS = 4096
const MAX_NAME_CHARACTERS = 1024
const SUFFIX = '.json'

const RegionSchema = z.object({
  name: z.string(),
  key: z.string(),
  offsetBytes: z.int().nonnegative(),
  bytes: z.int().positive(),
})

/** A range of a shared memory object, under a name. */
export type Region = z.infer<typeof RegionSchema>

/** Where in a region a tensor stands. */
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

/** A name of any length and content as that of a file. */
function fileName(region: string): string {
  return `${createHash('sha256').update(region).digest('hex')}${SUFFIX}`
}

function isMissing(thrown: unknown): boolean {
  return (thrown as NodeJS.ErrnoException).code === 'ENOENT'
}

export class Regions {
  readonly #folder: string

  /** `folder` is the same for every worker of a server; it is made, inside one that is there, when it is needed. */
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

  /** All regions, by name. */
  list(): Region[] {
    return this.#fileNames()
      .flatMap((file) => this.#read(file) ?? [])
      .sort((a, b) => (a.name < b.name ? -1 : 1))
  }

  find(name: string): Region | null {
    return this.#read(fileName(name))
  }

  /**
   * @throws OnecopyError REQUEST_INVALID (the name is taken or too long, or the object does not hold the range),
   *   SEGMENT_SPACE, SHUTTING_DOWN.
   */
  register(region: Region): void {
    if (region.name.length > MAX_NAME_CHARACTERS)
      throw invalid(`expected a region name of at most ${MAX_NAME_CHARACTERS} characters`)
    const endBytes = region.offsetBytes + region.bytes
    if (!Number.isSafeInteger(endBytes)) throw invalid('offset and byte_size are too large')
    if (this.#fileNames().length >= MAX_REGIONS)
      throw invalid(`${MAX_REGIONS} regions are registered, as many as may be`)
    checkObject(region.key, endBytes)
    this.#makeFolder()
    const whole = join(this.#folder, `.${randomUUID()}`)
    try {
      writeFileSync(whole, JSON.stringify(region), { flag: 'wx', mode: 0o600 })
      linkSync(whole, join(this.#folder, fileName(region.name)))
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      if (code === 'ENOSPC') throw new OnecopyError('SEGMENT_SPACE', 'no room for another region')
      if (code !== 'EEXIST') throw thrown
      throw invalid(`shared memory region ${shown(region.name)} is registered already: unregister it first`)
    } finally {
      rmSync(whole, { force: true })
    }
  }

  #makeFolder(): void {
    try {
      mkdirSync(this.#folder, { mode: 0o700 })
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException
      // The server's own folder goes when the server does.
      if (code === 'ENOENT') throw new OnecopyError('SHUTTING_DOWN', 'the server is shutting down')
      if (code !== 'EEXIST') throw thrown
    }
  }

  /** Forgets a region, or (null) all; one that is not there is no error. */
  unregister(name: string | null): void {
    const files = name === null ? this.#fileNames() : [fileName(name)]
    for (const file of files) rmSync(join(this.#folder, file), { force: true })
  }

  /** Where a range of a region stands in its object. */
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
