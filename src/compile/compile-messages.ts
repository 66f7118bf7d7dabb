/** What passes between the server and its compile process: one JSON line each way, and one notice between. */
import { z } from 'zod'
import { ErrorCodeSchema } from '../errors.js'
import { KnownFilesSchema } from './known-files.js'

export const CompileRequestSchema = z.object({
  modelPath: z.string(),
  /** Where an image may already be. */
  cacheFolders: z.array(z.string()),
  isCacheTrusted: z.boolean(),
  /** An empty folder of this compilation's own, where a new image is made; the server takes it, and removes the rest. */
  workFolder: z.string(),
  /** Whether to find out by trial runs if the model may be batched; without, it may not. */
  probe: z.boolean(),
  /** Keys of segments that the server can have without compiling. */
  heldKeys: z.array(z.string()),
})

/** Said when trial runs begin: a crash from here on is theirs, and the model can be served without them. */
export const CompileNoticeSchema = z.object({ notice: z.literal('probing') })

/** Said of every model that was read. */
const READ = {
  key: z.string(),
  /** What was read, to be recognised by; null where it may have changed meanwhile. */
  known: KnownFilesSchema.nullable(),
  /** Resident memory of the compile process afterwards: a large one is ended, to give it back. */
  residentBytes: z.int().nonnegative(),
}

export const CompileReplySchema = z.discriminatedUnion('outcome', [
  z.object({
    ...READ,
    outcome: z.literal('compiled'),
    imagePath: z.string(),
    /** Whether the cache already had it; one that is new stands in the work folder. */
    cached: z.boolean(),
  }),
  z.object({ ...READ, outcome: z.literal('held') }),
  z.object({
    outcome: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
])

export type CompileNotice = z.infer<typeof CompileNoticeSchema>
export type CompileRequest = z.infer<typeof CompileRequestSchema>
export type CompileReply = z.infer<typeof CompileReplySchema>
