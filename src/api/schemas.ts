/**
 * JSON schemas of every route except infer. They validate requests, define the OpenAPI document, and give
 * handlers and the client their types. Responses are strict: they contain no other fields.
 */
import * as z from 'zod'
import { datatypeSchema } from '../protocol/v2/schema.js'

/** A count or a size. */
const count = z.int().nonnegative()

export const errorSchema = z
  .strictObject({ error: z.string().min(1) })
  .describe('Human-readable message. X-Error-Code has the machine-readable code.')

export const openApiSchema = z.looseObject({ openapi: z.string() }).describe('OpenAPI 3.1.')

export const EXTENSIONS = [
  'binary_tensor_data',
  'classification',
  'logging',
  'model_configuration',
  'model_repository',
  'parameters',
  'schedule_policy',
  'statistics',
  'system_shared_memory',
  'trace',
] as const

export const serverMetadataSchema = z.strictObject({
  name: z.string(),
  version: z.string(),
  extensions: z.array(z.enum(EXTENSIONS)).describe('Only the enabled extensions.'),
})

export const serverLiveSchema = z.strictObject({ live: z.literal(true) })
export const serverReadySchema = z.strictObject({ live: z.literal(true), ready: z.literal(true) })
export const serverNotReadySchema = z.strictObject({
  live: z.literal(true),
  ready: z.literal(false),
  error: z.string().min(1),
})

export const modelListSchema = z.strictObject({ models: z.array(z.string()) })

export const modelTensorSchema = z.strictObject({
  name: z.string(),
  datatype: datatypeSchema,
  shape: z.array(z.int().min(-1)).describe('-1 is a variable dimension.'),
})

export const modelInputSchema = modelTensorSchema.extend({
  optional: z.literal(true).optional().describe('Present if the input has a default and can be omitted.'),
})

export const modelMetadataSchema = z.strictObject({
  name: z.string(),
  versions: z.array(z.string()).describe('The served versions, newest first.'),
  platform: z.literal('onnx_onnxv1'),
  inputs: z.array(modelInputSchema),
  outputs: z.array(modelTensorSchema),
})

export const modelReadySchema = z.strictObject({ name: z.string(), ready: z.literal(true) })
export const modelNotReadySchema = z.strictObject({
  name: z.string(),
  ready: z.literal(false),
  error: z.string().min(1),
})

export const indexRequestSchema = z
  .object({ ready: z.boolean().nullish() })
  .describe('`ready`: list only ready models. Without a body, everything is listed.')

const repositoryParametersSchema = z.record(z.string(), z.unknown())
/**
 * Models are loaded as they are in the repository. A config or file in the request is rejected instead of
 * silently ignored.
 */
export const loadRequestSchema = z
  .object({
    parameters: z
      .looseObject({
        config: z
          .string()
          .nullish()
          .describe("JSON that takes the place of the model's config.json until the next load."),
      })
      .refine(
        (parameters) =>
          !Object.entries(parameters).some(([key, value]) => value !== null && key.startsWith('file:')),
        'expected no files (file:...): models are loaded from the repository, put the files there',
      )
      .nullish(),
  })
  .describe('No body at all does as well. `file:...` is refused.')
export const unloadRequestSchema = z
  .object({ parameters: repositoryParametersSchema.nullish() })
  .describe('The body is optional. `unload_dependents` is ignored: models have no dependents.')

export const indexEntrySchema = z.strictObject({
  name: z.string().describe('The name in the repository; it may be an invalid model name.'),
  version: z.string().describe('Empty if the problem concerns the whole repository entry.'),
  state: z.enum(['LOADING', 'READY', 'UNLOADING', 'UNAVAILABLE']),
  reason: z
    .string()
    .describe(
      'Why the version is not ready, or why its latest change is not served; empty without a problem.',
    ),
})
export const repositoryIndexSchema = z.array(indexEntrySchema)

export const restartingSchema = z.strictObject({ restarting: z.literal(true) })
export const notRestartingSchema = z.strictObject({
  restarting: z.literal(false),
  error: z.string().min(1),
})

const durationSchema = z.strictObject({ count, ns: count.describe('Total nanoseconds.') })

export const modelStatisticsSchema = z.strictObject({
  name: z.string(),
  version: z.string(),
  last_inference: count.describe('Milliseconds since 1970; 0 if there was none.'),
  inference_count: count.describe('Number of rows.'),
  execution_count: count.describe('Executions of the model; fewer than rows with batching.'),
  inference_stats: z.strictObject({
    success: durationSchema,
    fail: durationSchema,
    queue: durationSchema,
    compute_input: durationSchema,
    compute_infer: durationSchema,
    compute_output: durationSchema,
    cache_hit: durationSchema,
    cache_miss: durationSchema,
  }),
  response_stats: z.record(z.string(), z.unknown()),
  batch_stats: z.array(
    z.strictObject({
      batch_size: count,
      compute_input: durationSchema,
      compute_infer: durationSchema,
      compute_output: durationSchema,
    }),
  ),
  memory_usage: z.array(z.strictObject({ type: z.string(), id: count, byte_size: count })),
})
export const statisticsSchema = z.strictObject({ model_stats: z.array(modelStatisticsSchema) })

/** Tensors as in Triton's model configuration: without the batch dimension if there is one. */
const configTensorSchema = z.looseObject({
  name: z.string(),
  data_type: z.string().describe("The datatype with Triton's prefix, such as TYPE_FP32."),
  dims: z.array(z.int().min(-1)),
  optional: z.literal(true).optional().describe('Present if the input can be omitted.'),
})

export const modelConfigurationSchema = z
  .looseObject({
    name: z.string(),
    platform: z.string(),
    max_batch_size: count.describe('0 if requests are not batched.'),
    input: z.array(configTensorSchema),
    output: z.array(configTensorSchema),
    dynamic_batching: z.looseObject({}).optional().describe('Present if requests are batched.'),
  })
  .describe("The part of Triton's model configuration that clients read.")

export const traceSettingsSchema = z.strictObject({
  trace_level: z.array(z.enum(['OFF', 'TIMESTAMPS', 'TENSORS'])),
  trace_rate: z.string(),
  trace_count: z.string(),
  log_frequency: z.string(),
  trace_file: z.string(),
  trace_mode: z.string(),
})
const settingSchema = z.union([z.string(), z.number(), z.boolean(), z.array(z.string())])
export const traceSettingsRequestSchema = z
  .record(z.string(), settingSchema.nullable())
  .describe('As the server has them, or null: traces are configured when it starts.')

export const logSettingsSchema = z.strictObject({
  log_file: z.literal(''),
  log_info: z.boolean(),
  log_warning: z.boolean(),
  log_error: z.boolean(),
  log_verbose_level: count.describe('1 is debug, 2 and more is trace.'),
  log_format: z.string(),
})
export const logSettingsRequestSchema = z
  .looseObject({
    log_info: z.boolean().nullish(),
    log_warning: z.boolean().nullish(),
    log_error: z.boolean().nullish(),
    log_verbose_level: count.nullish(),
  })
  .describe('The level of the log of every process; other settings as they are.')

export const sharedMemoryRequestSchema = z.object({
  key: z.string(),
  offset: count.nullable().default(0),
  byte_size: z.int().positive(),
})
export const sharedMemoryRegionSchema = z.strictObject({
  name: z.string(),
  key: z.string(),
  offset: count,
  byte_size: count,
})
export const sharedMemoryStatusSchema = z.array(sharedMemoryRegionSchema)
export const cudaSharedMemoryStatusSchema = z
  .array(z.strictObject({ name: z.string(), device_id: count, byte_size: count }))
  .describe('Empty: there are no CUDA regions on this server.')

export type ErrorBody = z.infer<typeof errorSchema>
export type Extension = (typeof EXTENSIONS)[number]
export type ServerMetadata = z.infer<typeof serverMetadataSchema>
export type ServerLive = z.infer<typeof serverLiveSchema>
export type ServerReadiness = z.infer<typeof serverReadySchema> | z.infer<typeof serverNotReadySchema>
export type ModelList = z.infer<typeof modelListSchema>
export type ModelTensor = z.infer<typeof modelInputSchema>
export type ModelMetadata = z.infer<typeof modelMetadataSchema>
export type ModelReadiness = z.infer<typeof modelReadySchema> | z.infer<typeof modelNotReadySchema>
export type IndexEntry = z.infer<typeof indexEntrySchema>
export type ModelState = IndexEntry['state']
export type RestartAnswer = z.infer<typeof restartingSchema> | z.infer<typeof notRestartingSchema>
export type ModelStatistics = z.infer<typeof modelStatisticsSchema>
export type Statistics = z.infer<typeof statisticsSchema>
export type ModelConfiguration = z.infer<typeof modelConfigurationSchema>
export type TraceSettings = z.infer<typeof traceSettingsSchema>
export type LogSettings = z.infer<typeof logSettingsSchema>
export type SharedMemoryRegion = z.infer<typeof sharedMemoryRegionSchema>
