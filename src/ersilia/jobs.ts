/**
 * Jobs: requests whose answer is fetched later. Their state stands in files of the server's folder in shared memory, so
 * that any worker can say how one stands, whichever works on it; and where that worker died, that it failed. The folder
 * ends with the server, and jobs with it.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { isAlive, ownIdentity, ProcessIdentitySchema } from '../process/identity.js'

const KEEP_MS = 3_600_000
/** Results that are kept, over all workers; the oldest make room. */
const KEEP_BYTES = 256 * 1024 * 1024
/** Jobs that one worker works on or has waiting. */
const MAX_PENDING = 64
const ID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const JobSchema = z.object({
  status: z.enum(['pending', 'completed', 'failed']),
  owner: ProcessIdentitySchema,
  /** Why it failed. */
  error: z.string().optional(),
})

type Job = z.infer<typeof JobSchema>
export type JobStatus = Job['status']

export class JobStore {
  readonly #folder: string
  readonly #pending = new Set<Promise<void>>()
  #turn: Promise<void> = Promise.resolve()

  private constructor(folder: string) {
    this.#folder = folder
  }

  static async open(serverFolder: string): Promise<JobStore> {
    const folder = join(serverFolder, 'jobs')
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return new JobStore(folder)
  }

  #path(id: string, kind: 'state' | 'result'): string {
    return join(this.#folder, `${id}.${kind}.json`)
  }

  /** Whole or not at all, whoever reads at the same time. */
  async #write(path: string, text: string): Promise<void> {
    const temporary = `${path}.${process.pid}.tmp`
    await writeFile(temporary, text, { mode: 0o600 })
    await rename(temporary, path)
  }

  /**
   * Begins `work`, after the jobs before it; its result is JSON text. Returns the job's id.
   * @throws OnecopyError QUEUE_FULL.
   */
  async submit(work: () => Promise<string>): Promise<string> {
    if (this.#pending.size >= MAX_PENDING)
      throw new OnecopyError('QUEUE_FULL', `${MAX_PENDING} jobs wait`, { retryAfterSeconds: 5 })
    const id = randomUUID()
    const owner = ownIdentity()
    await this.#write(this.#path(id, 'state'), JSON.stringify({ status: 'pending', owner } satisfies Job))
    const done = this.#turn.then(() => this.#complete(id, work))
    this.#turn = done
    this.#pending.add(done)
    void done.finally(() => this.#pending.delete(done))
    return id
  }

  async #complete(id: string, work: () => Promise<string>): Promise<void> {
    const owner = ownIdentity()
    let job: Job
    try {
      const result = await work()
      await this.#prune(result.length)
      await this.#write(this.#path(id, 'result'), result)
      job = { status: 'completed', owner }
    } catch (thrown) {
      job = { status: 'failed', owner, error: messageOf(thrown) }
    }
    // The folder is gone where the whole server is on its way out.
    await this.#write(this.#path(id, 'state'), JSON.stringify(job)).catch(() => {})
  }

  /** Drops what is too old, and the oldest where there is no room for another result. */
  async #prune(incomingBytes: number): Promise<void> {
    const names = await readdir(this.#folder)
    const files = await Promise.all(
      names.map(async (name) => {
        const found = await stat(join(this.#folder, name)).catch(() => null)
        return { name, bytes: found?.size ?? 0, changedMs: found?.mtimeMs ?? 0 }
      }),
    )
    files.sort((a, b) => a.changedMs - b.changedMs)
    let bytes = incomingBytes + files.reduce((sum, file) => sum + file.bytes, 0)
    for (const { name, bytes: size, changedMs } of files) {
      const isOld = Date.now() - changedMs > KEEP_MS
      const makesRoom = bytes > KEEP_BYTES && name.endsWith('.result.json')
      if (!isOld && !makesRoom) continue
      const id = name.split('.')[0] as string
      await rm(this.#path(id, 'state'), { force: true })
      await rm(this.#path(id, 'result'), { force: true })
      bytes -= size
    }
  }

  /** @throws OnecopyError JOB_NOT_FOUND. */
  async #read(id: string): Promise<Job> {
    const missing = new OnecopyError('JOB_NOT_FOUND', 'Job not found')
    if (!ID_PATTERN.test(id)) throw missing
    const text = await readFile(this.#path(id, 'state'), 'utf8').catch(() => {
      throw missing
    })
    const job = JobSchema.parse(JSON.parse(text))
    return job.status === 'pending' && !isAlive(job.owner) ? { ...job, status: 'failed' } : job
  }

  /** @throws OnecopyError JOB_NOT_FOUND. */
  async status(id: string): Promise<JobStatus> {
    return (await this.#read(id)).status
  }

  /**
   * The status, and the result as JSON text once it is completed.
   * @throws OnecopyError JOB_NOT_FOUND.
   */
  async result(id: string): Promise<{ readonly status: JobStatus; readonly text: string | null }> {
    const { status } = await this.#read(id)
    if (status !== 'completed') return { status, text: null }
    const text = await readFile(this.#path(id, 'result'), 'utf8').catch(() => {
      throw new OnecopyError('JOB_NOT_FOUND', 'Job not found')
    })
    return { status, text }
  }

  /** Resolves when every job that was begun here has ended. */
  async idle(): Promise<void> {
    await Promise.all(this.#pending)
  }
}
