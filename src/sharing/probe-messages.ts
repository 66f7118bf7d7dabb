/** Messages between a measuring process and its probes: one JSON line in each direction. */
import * as z from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'

export const ToProbeSchema = z.discriminatedUnion('type', [
  /** Load the image or segment; null loads only the library. */
  z.object({ type: z.literal('load'), path: z.string().nullable() }),
  /** Load a model with one operator, to measure what any first session takes. */
  z.object({ type: z.literal('begin') }),
  /** Run the model once. */
  z.object({ type: z.literal('run') }),
])

export const FromProbeSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('loaded') }),
  /** Input shapes of the run, or why it did not run. */
  z.object({
    type: z.literal('ran'),
    shapes: z.record(z.string(), z.array(z.int())).nullable(),
    problem: z.string().nullable(),
  }),
  z.object({
    type: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
])

export type ToProbe = z.infer<typeof ToProbeSchema>
export type FromProbe = z.infer<typeof FromProbeSchema>
