/** Options of `attach` and of a run. */
import { resolve } from 'node:path'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'

export interface AttachOptions {
  /** Without, the newest version that is in service. */
  readonly version?: string | number
  /** Folder of the segments. Default: $ONECOPY_SEGMENT_DIR or /dev/shm. */
  readonly segmentDir?: string
  /** Threads inside one inference. Default: as the owner's own workers have them. */
  readonly threads?: number
  /**
   * `auto` runs short executions on the event loop, as the server does; `thread` runs all of them in an
   * inference thread, which never blocks the event loop.
   */
  readonly placement?: 'auto' | 'thread'
  /**
   * What happens when the owner replaces the model. 'stay' (the default): the loaded generation keeps
   * answering, and the event 'outdated' is emitted. 'follow': the new one is loaded and answers from then on,
   * with the event 'swapped'.
   */
  readonly onSwap?: 'stay' | 'follow'
  /** Limit of the queue; further runs are rejected with QUEUE_FULL. Default: 1024. */
  readonly maxQueue?: number
  /** Deadline for attaching. Default: two minutes. */
  readonly timeoutMs?: number
  /** Cancels attaching. */
  readonly signal?: AbortSignal
  /** Only the server with this folder. */
  readonly serverFolder?: string
}

export interface RunOptions {
  /** Names of the outputs to compute. Default: all. */
  readonly outputs?: readonly string[]
  /** Cancels the run: it is not computed if it is in the queue, and its result is dropped otherwise. */
  readonly signal?: AbortSignal
  /** Deadline for the result, queueing included. Default: none. */
  readonly timeoutMs?: number
  /** 1 is the highest; 0, the default, is below 1 and above 3. */
  readonly priority?: number
}

const LONGEST_TIMER_MS = 2 ** 31 - 1
const timeoutMs = z.number().positive().max(LONGEST_TIMER_MS)
const signal = z.instanceof(AbortSignal)

const AttachOptionsSchema = z.strictObject({
  version: z
    .union([z.string(), z.int().positive()])
    .transform(String)
    .refine((version) => /^[1-9]\d*$/.test(version), 'expected a whole number from 1')
    .optional(),
  segmentDir: z.string().min(1).optional(),
  threads: z.int().positive().max(1024).optional(),
  placement: z.enum(['auto', 'thread']).optional(),
  onSwap: z.enum(['stay', 'follow']).optional(),
  maxQueue: z.int().positive().max(1_000_000).optional(),
  timeoutMs: timeoutMs.optional(),
  signal: signal.optional(),
  serverFolder: z.string().min(1).optional(),
})

const RunOptionsSchema = z.strictObject({
  outputs: z.array(z.string()).readonly().optional(),
  signal: signal.optional(),
  timeoutMs: timeoutMs.optional(),
  priority: z.int().nonnegative().optional(),
})

export interface AttachChoices {
  readonly name: string
  readonly version: string | null
  readonly segmentDir: string
  readonly serverFolder: string | null
  readonly threads: number | null
  readonly placement: 'auto' | 'thread'
  readonly isFollowing: boolean
  readonly maxQueue: number
  readonly timeoutMs: number
  readonly signal: AbortSignal | null
}

/** @throws OnecopyError CONFIG_INVALID naming what was expected. */
export function readAttachOptions(name: string, options: AttachOptions): AttachChoices {
  if (typeof name !== 'string' || name === '')
    throw new OnecopyError(
      'CONFIG_INVALID',
      `attach: expected the name of a model, got ${JSON.stringify(name)}`,
    )
  const parsed = AttachOptionsSchema.safeParse(options)
  if (!parsed.success) throw new OnecopyError('CONFIG_INVALID', `attach: ${z.prettifyError(parsed.error)}`)
  const given = parsed.data
  return {
    name,
    version: given.version ?? null,
    segmentDir: resolve(given.segmentDir ?? (process.env.ONECOPY_SEGMENT_DIR || '/dev/shm')),
    serverFolder: given.serverFolder ?? null,
    threads: given.threads ?? null,
    placement: given.placement ?? 'auto',
    isFollowing: given.onSwap === 'follow',
    maxQueue: given.maxQueue ?? 1024,
    timeoutMs: given.timeoutMs ?? 120_000,
    signal: given.signal ?? null,
  }
}

/** @throws OnecopyError REQUEST_INVALID naming what was expected. */
export function readRunOptions(options: RunOptions): RunOptions {
  const parsed = RunOptionsSchema.safeParse(options)
  if (parsed.success) return options
  throw new OnecopyError('REQUEST_INVALID', `run: ${z.prettifyError(parsed.error)}`)
}
