/** The list of serving workers: each writes a note to the server's folder, and any can read all notes. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { isAlive, ownIdentity, ProcessIdentitySchema } from '../process/identity.js'
import { readProcessMemory } from '../process/memory.js'

const NoteSchema = z.object({ identity: ProcessIdentitySchema, startTime: z.string() })

export interface WorkerFacts {
  readonly id: string
  readonly startTime: string
  readonly status: 'READY'
  /** Proportional set size in MB. */
  readonly memoryUsage: number
  readonly pid: number
}

export class WorkerNotes {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Writes the note of this process. */
  static async open(serverFolder: string): Promise<WorkerNotes> {
    const folder = join(serverFolder, 'workers')
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const note = { identity: ownIdentity(), startTime: new Date().toISOString() }
    const path = join(folder, `${process.pid}.json`)
    // Written atomically, so that concurrent readers never see a partial file.
    await writeFile(`${path}.tmp`, JSON.stringify(note), { mode: 0o600 })
    await rename(`${path}.tmp`, path)
    const notes = new WorkerNotes(folder)
    // Removes the notes of dead workers, which would accumulate otherwise.
    await notes.list()
    return notes
  }

  /** Living workers, oldest first; notes of dead ones are removed. */
  async list(): Promise<WorkerFacts[]> {
    const names = (await readdir(this.#folder)).filter((name) => name.endsWith('.json'))
    const found = await Promise.all(
      names.map(async (name): Promise<WorkerFacts | null> => {
        const text = await readFile(join(this.#folder, name), 'utf8').catch(() => '')
        const note = NoteSchema.safeParse(text === '' ? null : JSON.parse(text)).data
        if (note === undefined) return null
        if (!isAlive(note.identity)) {
          await rm(join(this.#folder, name), { force: true })
          return null
        }
        const { pid } = note.identity
        const memory = await readProcessMemory(pid)
        const megabytes = (memory?.proportionalBytes ?? 0) / 1e6
        const memoryUsage = Math.round(megabytes * 10) / 10
        return { id: String(pid), startTime: note.startTime, status: 'READY', memoryUsage, pid }
      }),
    )
    return found.filter((one) => one !== null).sort((a, b) => (a.startTime < b.startTime ? -1 : 1))
  }
}
