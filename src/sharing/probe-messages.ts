/** Messages between a measuring process and its probes: one JSON line in each direction. */
import * as z from 'zod'
import { ErrorCodeSchema } from '../error-schemas.js'
import { DATATYPES, type Datatype } from '../tensor.js'
import { POOLINGS } from '../token-pooling.js'

const TensorSpecSchema = z.object({
  name: z.string(),
  datatype: z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]]),
  shape: z.array(z.int()).readonly().nullable(),
})

const TextInterfaceSchema = z.object({
  inputs: z.array(TensorSpecSchema).readonly(),
  output: TensorSpecSchema,
  pooling: z.enum(POOLINGS).nullable(),
})

export const ToProbeSchema = z.discriminatedUnion('type', [
  /** Load the image or segment; null loads only the library. */
  z.object({ type: z.literal('load'), path: z.string().nullable() }),
  /** Load a model with one operator, to measure what any first session takes. */
  z.object({ type: z.literal('begin') }),
  /** Run the model once. */
  z.object({ type: z.literal('run') }),
  /** Check whether the result of a text depends on its padding. */
  z.object({
    type: z.literal('pad'),
    textInterface: TextInterfaceSchema,
    paddingId: z.int().nonnegative(),
    maxLength: z.int().positive(),
    vocabularySize: z.int().positive(),
  }),
])

export const FromProbeSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('loaded') }),
  /** Input shapes of the run, or why it did not run. */
  z.object({
    type: z.literal('ran'),
    shapes: z.record(z.string(), z.array(z.int())).nullable(),
    problem: z.string().nullable(),
  }),
  /** Why padding changes results; null if it does not. */
  z.object({ type: z.literal('padded'), problem: z.string().nullable() }),
  z.object({
    type: z.literal('failed'),
    code: ErrorCodeSchema,
    message: z.string(),
  }),
])

export type ToProbe = z.infer<typeof ToProbeSchema>
export type FromProbe = z.infer<typeof FromProbeSchema>
