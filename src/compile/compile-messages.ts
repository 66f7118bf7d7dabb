/**
 * Messages between the server and its compile process: one JSON line in each direction, and notices
 * in between.
 */
import * as z from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'
import { KnownFilesSchema } from './known-files.js'

export const CompileRequestSchema = z.object({
  modelPath: z.string(),
  /** Folders to search for an existing image. */
  cacheFolders: z.array(z.string()),
  isCacheTrusted: z.boolean(),
  /**
   * Empty folder of this compilation for a new image. The server moves the image out and removes the rest.
   */
  workFolder: z.string(),
  /** Whether trial runs test batchability; without them the model is not batched. */
  probe: z.boolean(),
  /** Keys of segments that the server can use without compilation. */
  heldKeys: z.array(z.string()),
})

export const CompileNoticeSchema = z.discriminatedUnion('notice', [
  /** The model is in no cache. `modelBytes` counts its external data. */
  z.object({ notice: z.literal('compiling'), modelBytes: z.int().nonnegative() }),
  /** Trial runs begin. They cause any later crash, and the model can be served without them. */
  z.object({ notice: z.literal('probing') }),
])

/** Fields of every reply for a model that could be read. */
const READ = {
  key: z.string(),
  /** Facts to recognise the files by; null if they may have changed meanwhile. */
  known: KnownFilesSchema.nullable(),
  /**
   * Resident memory of the compile process after the request. Above a threshold the server restarts the
   * process.
   */
  residentBytes: z.int().nonnegative(),
}

export const CompileReplySchema = z.discriminatedUnion('outcome', [
  z.object({
    ...READ,
    outcome: z.literal('compiled'),
    imagePath: z.string(),
    /** Whether the image comes from the cache; a new one is in the work folder. */
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
