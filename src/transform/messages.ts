/** What passes between a process and the thread of an input transform. Rows travel by transfer. */
import { z } from 'zod'
import { ErrorCodeSchema } from '../errors.js'
import type { NumericData } from '../tensor.js'

const id = z.int().nonnegative()
const rows = z.array(z.custom<NumericData>((data) => ArrayBuffer.isView(data)))

export const ThreadStartSchema = z.object({
  kind: z.string(),
  /** Checked where the manifest was read; parsed again by the kind's own schema. */
  options: z.unknown(),
  /** Two cells: the place of the item that is worked on (see PLACES), and how often that changed. */
  progress: z.instanceof(SharedArrayBuffer),
})

export const EncodeRequestSchema = z.object({
  id,
  /** Whatever was sent to the server. */
  items: z.array(z.unknown()),
  /** Places of items that are refused without being looked at. */
  skip: z.array(z.int().nonnegative()),
})

export const TransformReplySchema = z.discriminatedUnion('type', [
  /** With the kernel's id of the thread, for its CPU time. */
  z.object({ type: z.literal('opened'), threadId: z.int().positive().nullable() }),
  z.object({
    type: z.literal('encoded'),
    id,
    /** By item: 1 where it has a row. */
    accepted: z.instanceof(Uint8Array),
    /** By tensor: the rows of accepted items only, without gaps. */
    rows,
    /** How often the transform had to be opened anew. */
    reopened: z.int().nonnegative(),
  }),
  z.object({
    type: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
])

export type ThreadStart = z.infer<typeof ThreadStartSchema>
export type EncodeRequest = z.infer<typeof EncodeRequestSchema>
export type TransformReply = z.infer<typeof TransformReplySchema>

/** What the first progress cell says where it is not the place of an item. */
export const PLACES = { idle: -1, opening: -2 } as const
