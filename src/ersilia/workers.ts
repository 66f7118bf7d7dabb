/** Who serves: every worker leaves a note in the server's folder, and reads those of the others. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { isAlive, ownIdentity, ProcessIdentitySchema } from '../process/identity.js'
import { readProcessMemory } from '../process/memory.js'

const NoteSchema = z.object({ identity: ProcessIdentitySchema, startTime: z.string() })

export interface WorkerFacts {
  readonly id: string
  readonly startTime: string
  readonly status: 'READY'
  /** MB: what it holds for itself, and its share of what it holds with others. */
  readonly memoryUsage: number
  readonly pid: number
}

export class WorkerNotes {
  readonly #folder: string

  private constructor(folder: string) {
    this.#folder = folder
  }

  /** Writes this process's note. */
  static async open(serverFolder: string): Promise<WorkerNotes> {
    const folder = join(serverFolder, 'workers')
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const note = { identity: ownIdentity(), startTime: new Date().toISOString() }
    const path = join(folder, `${process.pid}.json`)
    // Whole or not at all, whoever reads at the same time.
    await writeFile(`${path}.tmp`, JSON.stringify(note), { mode: 0o600 })
    await rename(`${path}.tmp`, path)
    const notes = new WorkerNotes(folder)
    // Those of workers that are gone would pile up with every one that is replaced.
    await notes.list()
    return notes
  }

  /** Workers that live, by age; the notes of others are removed. */
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
