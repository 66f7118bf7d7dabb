/**
 * The JSON of the infer route, request and response, as schemas: the only place that defines the
 * keys. Unknown keys are ignored. What the schemas cannot express (element counts, ranges, agreement with the
 * model) is checked in request.ts and json-data.ts.
 *
 * Source: Open Inference Protocol V2 (KServe), with Triton's `parameters` and binary tensor extensions.
 */
import * as z from 'zod'
import { DATATYPES, type Datatype } from '../../tensor.js'
import { JSON_RULES, type JsonRule, SPECIAL_FLOATS } from './datatypes.js'

export const datatypeSchema = z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]])

/** Sizes of the dimensions, each a non-negative integer; `[]` is a scalar. */
const shape = z.array(z.int().nonnegative())

export const parametersSchema = z.record(z.string(), z.union([z.string(), z.number(), z.boolean()]))

/** What the schemas of a request differ in: how data is written, and how a member that may be missing is. */
interface RequestForm<Data extends z.ZodType> {
  readonly data: Data
  readonly optional: <Schema extends z.ZodType>(schema: Schema) => z.ZodType<z.output<Schema> | undefined>
}

function requestWith<Data extends z.ZodType>({ data, optional }: RequestForm<Data>) {
  const requestedOutput = z.object({ name: z.string(), parameters: optional(parametersSchema) })
  return z.object({
    id: optional(z.string()),
    parameters: optional(parametersSchema),
    inputs: z.array(
      z.object({
        name: z.string(),
        shape,
        datatype: datatypeSchema,
        parameters: optional(parametersSchema),
        data: optional(data),
      }),
    ),
    outputs: optional(z.array(requestedOutput)),
  })
}

const element = z.union([z.number(), z.boolean(), z.string()])

/**
 * Elements in row-major order, flat or nested as the shape. The schema ends below the first level: one that
 * refers to itself becomes a type that TypeScript cannot resolve in generated clients.
 */
export const nestedDataSchema = z.array(z.union([element, z.array(z.unknown())]))

/**
 * The request as a client writes it; what may be missing may be null. For documentation and whole requests in
 * files; those that arrive are checked with the skeleton below.
 */
export const inferRequestSchema = requestWith({
  data: nestedDataSchema,
  optional: (schema) => schema.nullish() as z.ZodType<z.output<typeof schema> | undefined>,
})

/**
 * The request after json.ts took the tensor data out and skeleton.ts the members that are null: each `data`
 * is the index of a range of bytes.
 */
export const requestSkeletonSchema = requestWith({
  data: z.int().nonnegative(),
  optional: (schema) => schema.optional(),
})

/** Digits beyond 2^53 are exact on the wire. A client that reads them as a number rounds them. */
const wideInteger = z.number().refine(Number.isInteger, 'expected an integer').meta({ type: 'integer' })

/** One element of an answer, as the datatype's rule writes it; null where JSON has no form for it. */
function elementOf(rule: JsonRule): z.ZodType | null {
  switch (rule.kind) {
    case 'bool':
      return z.boolean()
    case 'integer':
      return z.int().min(rule.min).max(rule.max)
    case 'integer64':
      return wideInteger
    case 'float':
      return z.union([z.number(), z.enum([...SPECIAL_FLOATS.keys()] as [string, ...string[]])])
    case 'text':
      return z.string()
    case 'none':
      return null
  }
}

const outputHead = { name: z.string(), shape }

/** Its bytes follow the JSON, in the order of the outputs. */
const binaryOutput = z.strictObject({
  ...outputHead,
  datatype: datatypeSchema,
  parameters: z.strictObject({ binary_data_size: z.int().nonnegative() }),
})

/** Its bytes were written to the place that the request named; clients expect no parameters then. */
const sharedOutput = z.strictObject({ ...outputHead, datatype: datatypeSchema })

const jsonOutputs = Object.entries(JSON_RULES).flatMap(([name, rule]) => {
  const data = elementOf(rule)
  return data === null
    ? []
    : [z.strictObject({ ...outputHead, datatype: z.literal(name as Datatype), data: z.array(data) })]
})

/** One output of a response: strict, so that validation catches a wrong one. */
export const outputSchema = z.union([binaryOutput, sharedOutput, ...jsonOutputs])

export const inferResponseSchema = z.strictObject({
  model_name: z.string(),
  model_version: z.string(),
  id: z.string().optional(),
  parameters: parametersSchema.optional(),
  outputs: z.array(outputSchema),
})

export type RequestParameters = z.infer<typeof parametersSchema>
export type RequestSkeleton = z.infer<typeof requestSkeletonSchema>
export type SkeletonInput = RequestSkeleton['inputs'][number]
export type SkeletonOutput = NonNullable<RequestSkeleton['outputs']>[number]
