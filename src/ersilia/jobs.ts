/**
 * Asynchronous jobs, whose results are fetched later. Their state is in files of the server's shared-memory
 * folder. So any worker can report on a job, and a job whose worker died is reported as failed. The folder
 * and its jobs disappear with the server.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { isAlive, ownIdentity, ProcessIdentitySchema } from '../process/identity.js'

const KEEP_MS = 3_600_000
/**
 * Limits over all workers: memory of states and results, and number of jobs. The oldest finished jobs are
 * removed first.
 */
const KEEP_BYTES = 256 * 1024 * 1024
const KEEP_JOBS = 4096
/** Minimum memory of a file. */
const BLOCK_BYTES = 4096
/** Limits per worker for running and queued jobs, and for their inputs. */
const MAX_PENDING = 64
const MAX_PENDING_BYTES = 256 * 1024 * 1024
const ID_PATTERN = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

const JobSchema = z.object({
  status: z.enum(['pending', 'completed', 'failed']),
  owner: ProcessIdentitySchema,
  /** The reason of a failure. */
  error: z.string().optional(),
})

type Job = z.infer<typeof JobSchema>
export type JobStatus = Job['status']

/** Limits of a job store. */
export interface JobLimits {
  readonly keepBytes: number
  readonly keepJobs: number
  readonly maxPending: number
  readonly maxPendingBytes: number
}

const LIMITS: JobLimits = {
  keepBytes: KEEP_BYTES,
  keepJobs: KEEP_JOBS,
  maxPending: MAX_PENDING,
  maxPendingBytes: MAX_PENDING_BYTES,
}

/** The files of one job. */
interface Kept {
  readonly id: string
  bytes: number
  changedMs: number
}

/** `isCancelled` is checked between steps; a cancelled job throws. */
export type JobWork = (isCancelled: () => boolean) => Promise<string>

export class JobStore {
  readonly #folder: string
  readonly #limits: JobLimits
  readonly #pending = new Set<Promise<void>>()
  #pendingBytes = 0
  #turn: Promise<void> = Promise.resolve()
  #isClosed = false
  /** Jobs whose state could not be written. */
  readonly #isLost = new Set<string>()

  private constructor(folder: string, limits: JobLimits) {
    this.#folder = folder
    this.#limits = limits
  }

  static async open(serverFolder: string, limits: Partial<JobLimits> = {}): Promise<JobStore> {
    const folder = join(serverFolder, 'jobs')
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return new JobStore(folder, { ...LIMITS, ...limits })
  }

  #path(id: string, kind: 'state' | 'result'): string {
    return join(this.#folder, `${id}.${kind}.json`)
  }

  /** Writes atomically, so that concurrent readers never see a partial file. */
  async #write(path: string, text: string): Promise<void> {
    const temporary = `${path}.${process.pid}.tmp`
    await writeFile(temporary, text, { mode: 0o600 })
    await rename(temporary, path)
  }

  /**
   * Queues `work`, whose result is JSON text, and returns the id of the job.
   * @param inputBytes Memory of the job's inputs while it is queued.
   * @throws OnecopyError QUEUE_FULL, REQUEST_TOO_LARGE, SHUTTING_DOWN, SEGMENT_SPACE.
   */
  async submit(work: JobWork, inputBytes: number): Promise<string> {
    this.#admit(inputBytes)
    const id = randomUUID()
    // Counted before the first await, because submissions can be concurrent.
    this.#pendingBytes += inputBytes
    let begin = () => {}
    const isBegun = new Promise<void>((resolve) => {
      begin = resolve
    })
    const done = Promise.all([this.#turn, isBegun]).then(() => this.#complete(id, work))
    this.#turn = done
    this.#pending.add(done)
    void done.finally(() => {
      this.#pending.delete(done)
      this.#pendingBytes -= inputBytes
    })
    try {
      const job: Job = { status: 'pending', owner: ownIdentity() }
      await this.#write(this.#path(id, 'state'), JSON.stringify(job))
    } catch (thrown) {
      this.#isLost.add(id)
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOSPC') throw thrown
      throw new OnecopyError('SEGMENT_SPACE', 'not enough shared memory for another job', { cause: thrown })
    } finally {
      begin()
    }
    return id
  }

  #admit(inputBytes: number): void {
    const { maxPending, maxPendingBytes } = this.#limits
    if (this.#isClosed)
      throw new OnecopyError('SHUTTING_DOWN', 'the server is shutting down', { retryAfterSeconds: 1 })
    if (inputBytes > maxPendingBytes)
      throw new OnecopyError(
        'REQUEST_TOO_LARGE',
        `expected a job of at most ${maxPendingBytes} bytes, got ${inputBytes}`,
      )
    if (this.#pending.size >= maxPending)
      throw new OnecopyError('QUEUE_FULL', `${this.#pending.size} jobs are queued`, { retryAfterSeconds: 5 })
    if (this.#pendingBytes + inputBytes > maxPendingBytes)
      throw new OnecopyError(
        'QUEUE_FULL',
        `queued jobs take ${this.#pendingBytes} bytes, ${inputBytes} more would exceed the limit of ${maxPendingBytes}`,
        { retryAfterSeconds: 5 },
      )
  }

  async #complete(id: string, work: JobWork): Promise<void> {
    // The client never got its id.
    if (this.#isLost.delete(id)) return
    const owner = ownIdentity()
    let job: Job
    try {
      if (this.#isClosed)
        throw new OnecopyError('SHUTTING_DOWN', 'its worker shut down before the job started')
      const result = await work(() => this.#isClosed)
      await this.#prune(Buffer.byteLength(result))
      await this.#write(this.#path(id, 'result'), result)
      job = { status: 'completed', owner }
    } catch (thrown) {
      job = { status: 'failed', owner, error: messageOf(thrown) }
      // Failed jobs are kept too and must not accumulate.
      await this.#prune(0).catch(() => {})
    }
    // The folder is already gone if the whole server is shutting down.
    await this.#write(this.#path(id, 'state'), JSON.stringify(job)).catch(() => {})
  }

  /** All jobs of all workers that have files, oldest first. */
  async #kept(): Promise<Kept[]> {
    const byId = new Map<string, Kept>()
    for (const name of await readdir(this.#folder)) {
      const found = await stat(join(this.#folder, name)).catch(() => null)
      if (found === null) continue
      const id = name.split('.')[0] as string
      const kept = byId.get(id) ?? { id, bytes: 0, changedMs: 0 }
      kept.bytes += Math.ceil(found.size / BLOCK_BYTES) * BLOCK_BYTES
      kept.changedMs = Math.max(kept.changedMs, found.mtimeMs)
      byId.set(id, kept)
    }
    return [...byId.values()].sort((a, b) => a.changedMs - b.changedMs)
  }

  /** Forgets every job that has ended, of any worker. */
  async reset(): Promise<void> {
    for (const { id } of await this.#kept()) {
      if (await this.#isPending(id)) continue
      for (const kind of ['state', 'result'] as const) await rm(this.#path(id, kind), { force: true })
    }
  }

  async #isPending(id: string): Promise<boolean> {
    return (await this.#read(id).catch(() => null))?.status === 'pending'
  }

  /** Removes expired jobs, and the oldest finished ones while a limit is exceeded. */
  async #prune(incomingBytes: number): Promise<void> {
    const { keepBytes, keepJobs } = this.#limits
    if (incomingBytes > keepBytes)
      throw new OnecopyError(
        'RESPONSE_TOO_LARGE',
        `expected a result of at most ${keepBytes} bytes, got ${incomingBytes}`,
      )
    const kept = await this.#kept()
    let bytes = kept.reduce((sum, one) => sum + one.bytes, incomingBytes)
    let jobs = kept.length
    for (const { id, bytes: size, changedMs } of kept) {
      const isOld = Date.now() - changedMs > KEEP_MS
      if (!isOld && bytes <= keepBytes && jobs <= keepJobs) return
      if (await this.#isPending(id)) continue
      for (const kind of ['state', 'result'] as const) await rm(this.#path(id, kind), { force: true })
      bytes -= size
      jobs--
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
   * The status, and the result as JSON text once the job is completed.
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

  /**
   * Accepts no more jobs. Queued jobs fail, and the running one stops at its next step. Resolves when all
   * have ended.
   */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all(this.#pending)
  }
}
