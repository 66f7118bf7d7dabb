/** Messages between a process and the thread of an input transform. Row buffers are transferred. */
import * as z from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'
import type { NumericData } from '../tensor.js'

const id = z.int().nonnegative()
const rows = z.array(z.custom<NumericData>((data) => ArrayBuffer.isView(data)))

export const ThreadStartSchema = z.object({
  kind: z.string(),
  /** Validated with the manifest; parsed again by the schema of the kind. */
  options: z.unknown(),
  /** Two cells: the index of the current item (see PLACES) and the number of changes. */
  progress: z.instanceof(SharedArrayBuffer),
})

export const EncodeRequestSchema = z.object({
  id,
  /** Items as sent by the client. */
  items: z.array(z.unknown()),
  /** Indices of items that are rejected without processing. */
  skip: z.array(z.int().nonnegative()),
})

export const TransformReplySchema = z.discriminatedUnion('type', [
  /** Includes the kernel's id of the thread, to measure its CPU time. */
  z.object({ type: z.literal('opened'), threadId: z.int().positive().nullable() }),
  z.object({
    type: z.literal('encoded'),
    id,
    /** Per item: 1 if it was accepted. */
    accepted: z.instanceof(Uint8Array),
    /** Per tensor: the rows of accepted items only, without gaps. */
    rows,
    /** How often the transform had to be reopened. */
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

/** Values of the first progress cell that are not item indices. */
export const PLACES = { idle: -1, opening: -2 } as const
