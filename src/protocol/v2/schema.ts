/**
 * The JSON of the infer route, request and response, as schemas: the one place that says which keys there
 * are. Unknown keys are ignored. What the schemas cannot say (element counts, ranges, agreement with the
 * model) is checked in request.ts and json-data.ts.
 *
 * Source: Open Inference Protocol V2 (KServe), with Triton's `parameters` and binary tensor extensions.
 */
import { z } from 'zod'
import { DATATYPES, type Datatype } from '../../tensor.js'

const datatype = z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]])

/** Sizes of the dimensions, each a non-negative integer; `[]` is a scalar. */
const shape = z.array(z.int().nonnegative())

export const parametersSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]))

const requestedOutput = z.object({
  name: z.string(),
  parameters: parametersSchema.optional(),
})

function requestWith<Data extends z.ZodType>(data: Data) {
  return z.object({
    id: z.string().optional(),
    parameters: parametersSchema.optional(),
    inputs: z.array(
      z.object({
        name: z.string(),
        shape,
        datatype,
        parameters: parametersSchema.optional(),
        data: data.optional(),
      }),
    ),
    outputs: z.array(requestedOutput).optional(),
  })
}

const element = z.union([z.number(), z.boolean(), z.string()])

/** Elements in row-major order, flat or nested as the shape says. */
const nestedData: z.ZodType = z.lazy(() => z.union([element, z.array(nestedData)]))

/** The request as a client writes it. For documentation; requests are checked with the skeleton below. */
export const inferRequestSchema = requestWith(nestedData)

/** The request after json.ts took the tensor data out: each `data` is the index of a range of bytes. */
export const requestSkeletonSchema = requestWith(z.int().nonnegative())

export const inferResponseSchema = z.object({
  model_name: z.string(),
  model_version: z.string(),
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  outputs: z.array(
    z.object({
      name: z.string(),
      shape,
      datatype,
      parameters: parametersSchema.optional(),
      data: z.array(element).optional(),
    }),
  ),
})

export type RequestParameters = z.infer<typeof parametersSchema>
export type RequestSkeleton = z.infer<typeof requestSkeletonSchema>
export type SkeletonInput = RequestSkeleton['inputs'][number]
export type SkeletonOutput = NonNullable<RequestSkeleton['outputs']>[number]
export type InferResponseJson = z.infer<typeof inferResponseSchema>
