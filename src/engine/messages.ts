/** What passes between a serving process and its inference thread. Tensors travel by transfer. */
import { z } from 'zod'
import { ErrorCodeSchema } from '../errors.js'
import { StatsPageReferenceSchema } from '../metrics/page.js'
import { DATATYPES, type Datatype, type TensorData } from '../tensor.js'

const datatype = z.enum(Object.keys(DATATYPES) as [Datatype, ...Datatype[]])
const spec = z.object({ name: z.string(), datatype, shape: z.array(z.int()).nullable() })
const tensor = z.object({
  name: z.string(),
  datatype,
  shape: z.array(z.int().nonnegative()),
  data: z.custom<TensorData>((data) => ArrayBuffer.isView(data) || Array.isArray(data)),
})
const id = z.int().nonnegative()

/** What the outputs of a run may take on the wire: checked where they are, before they go anywhere. */
const outputLimit = z.object({
  bytes: z.int().positive(),
  /** By output: the least that one of its elements takes; 0 where it does not go into the answer. */
  leastElementBytes: z.array(z.number().nonnegative()),
})
export type OutputLimit = z.infer<typeof outputLimit>

export const ThreadRequestSchema = z.discriminatedUnion('type', [
  /** Where to say which model the runtime works on. */
  z.object({ type: z.literal('report'), id, page: StatsPageReferenceSchema, slot: z.int().nonnegative() }),
  z.object({
    type: z.literal('load'),
    id,
    /** Which loaded model later messages mean. */
    modelKey: z.string(),
    graph: z.instanceof(Uint8Array),
    folder: z.string().nullable(),
    form: z.enum(['compiled', 'original']),
    inputs: z.array(spec),
    outputs: z.array(spec),
    /** Of inputs that need not be sent. */
    defaults: z.array(tensor),
    threads: z.int().positive(),
    /** Names the model version in the stats pages; 0 for none. */
    number: z.int().nonnegative(),
  }),
  z.object({
    type: z.literal('run'),
    id,
    modelKey: z.string(),
    inputs: z.array(tensor),
    outputNames: z.array(z.string()),
    outputLimit: outputLimit.nullable(),
    /** Whether it belongs to loading the model: no client has asked. */
    isProving: z.boolean(),
  }),
  z.object({ type: z.literal('unload'), id, modelKey: z.string() }),
  /** Answered when all that was asked before is done: a sign of life. */
  z.object({ type: z.literal('ping'), id }),
  z.object({ type: z.literal('close'), id }),
])

export const ThreadReplySchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('done'), id }),
  z.object({
    type: z.literal('ran'),
    id,
    outputs: z.array(tensor),
    /** When the runtime began, on the clock of process.hrtime, which all threads share. */
    startedNs: z.number().nonnegative(),
    /** Time inside the runtime. */
    computeNs: z.number().nonnegative(),
  }),
  z.object({
    type: z.literal('failed'),
    id,
    code: ErrorCodeSchema,
    message: z.string(),
  }),
])

export type ThreadRequest = z.infer<typeof ThreadRequestSchema>
export type ThreadReply = z.infer<typeof ThreadReplySchema>
/** Distributes over the union, so that each kind keeps its own fields. */
export type WithoutId<T> = T extends unknown ? Omit<T, 'id'> : never

/** The buffers under a list of tensors, each once; strings have none and are cloned. */
export function transferList(tensors: readonly { readonly data: TensorData }[]): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>()
  for (const { data } of tensors) if (ArrayBuffer.isView(data)) buffers.add(data.buffer)
  return [...buffers]
}
