/** Schemas by their names in the OpenAPI document. Every body of a route is one of them. */
import * as z from 'zod'
import {
  datatypeSchema,
  inferRequestSchema,
  inferResponseSchema,
  nestedDataSchema,
  outputSchema,
  parametersSchema,
} from '../protocol/v2/schema.js'
import * as ersilia from './ersilia-schemas.js'
import * as schemas from './schemas.js'
import * as texts from './text-schemas.js'

const COMPONENTS = {
  Error: schemas.errorSchema,
  ErrorDetail: ersilia.errorDetailSchema,
  Molecules: ersilia.moleculesSchema,
  MoleculeRows: ersilia.moleculeRowsSchema,
  TextList: ersilia.textListSchema,
  BundleName: ersilia.bundleNameSchema,
  Card: ersilia.cardSchema,
  JobSubmitted: ersilia.jobSubmittedSchema,
  JobStatus: ersilia.jobStatusSchema,
  JobResult: ersilia.jobResultSchema,
  JobsReset: ersilia.jobsResetSchema,
  BundleStatus: ersilia.bundleStatusSchema,
  BundleHealth: ersilia.bundleHealthSchema,
  OpenApi: schemas.openApiSchema,
  ServerMetadata: schemas.serverMetadataSchema,
  ServerLive: schemas.serverLiveSchema,
  ServerReady: schemas.serverReadySchema,
  ServerNotReady: schemas.serverNotReadySchema,
  ModelList: schemas.modelListSchema,
  ModelMetadata: schemas.modelMetadataSchema,
  ModelTensor: schemas.modelTensorSchema,
  ModelReady: schemas.modelReadySchema,
  ModelNotReady: schemas.modelNotReadySchema,
  Datatype: datatypeSchema,
  Parameters: parametersSchema,
  TensorData: nestedDataSchema,
  InferRequest: inferRequestSchema,
  InferOutput: outputSchema,
  InferResponse: inferResponseSchema,
  IndexRequest: schemas.indexRequestSchema,
  LoadRequest: schemas.loadRequestSchema,
  UnloadRequest: schemas.unloadRequestSchema,
  IndexEntry: schemas.indexEntrySchema,
  RepositoryIndex: schemas.repositoryIndexSchema,
  Restarting: schemas.restartingSchema,
  NotRestarting: schemas.notRestartingSchema,
  ModelStatistics: schemas.modelStatisticsSchema,
  Statistics: schemas.statisticsSchema,
  ModelConfiguration: schemas.modelConfigurationSchema,
  SharedMemoryRequest: schemas.sharedMemoryRequestSchema,
  SharedMemoryRegion: schemas.sharedMemoryRegionSchema,
  SharedMemoryStatus: schemas.sharedMemoryStatusSchema,
  TraceSettings: schemas.traceSettingsSchema,
  TraceSettingsRequest: schemas.traceSettingsRequestSchema,
  LogSettings: schemas.logSettingsSchema,
  LogSettingsRequest: schemas.logSettingsRequestSchema,
  CudaSharedMemoryStatus: schemas.cudaSharedMemoryStatusSchema,
  OpenAiError: texts.openAiErrorSchema,
  TextError: texts.textErrorSchema,
  EmbeddingsRequest: texts.embeddingsRequestSchema,
  Embeddings: texts.embeddingsSchema,
  TextModel: texts.textModelSchema,
  TextModelList: texts.textModelListSchema,
  DocumentsRequest: texts.documentsRequestSchema,
  RankedDocuments: texts.rankedDocumentsSchema,
  EmbedRequest: texts.embedRequestSchema,
  Vectors: texts.vectorsSchema,
  PredictRequest: texts.predictRequestSchema,
  Prediction: texts.predictionSchema,
  RerankRequest: texts.rerankRequestSchema,
  Ranks: texts.ranksSchema,
  TokenizeRequest: texts.tokenizeRequestSchema,
  Tokens: texts.tokensSchema,
  TextInfo: texts.textInfoSchema,
} as const satisfies Record<string, z.ZodType>

export type ComponentName = keyof typeof COMPONENTS
export type JsonSchema = Readonly<Record<string, unknown>>

function reference(name: string): string {
  return `#/components/schemas/${name}`
}

export function componentReference(name: ComponentName): JsonSchema {
  return { $ref: reference(name) }
}

/** Every component as JSON Schema (2020-12), in its input form. */
export function componentSchemas(): Record<string, JsonSchema> {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(COMPONENTS)) registry.add(schema, { id })
  const { schemas: generated } = z.toJSONSchema(registry, { io: 'input', uri: reference })
  return Object.fromEntries(
    Object.entries(generated).map(([name, { $schema: _dialect, $id: _address, ...schema }]) => [
      name,
      schema,
    ]),
  )
}

/** The components in `used` and all components they reference, directly or indirectly. */
export function withReferences(
  used: Iterable<string>,
  all: Readonly<Record<string, JsonSchema>>,
): Record<string, JsonSchema> {
  const found = new Set<string>(used)
  // Iteration over a Set includes elements added during the iteration.
  for (const name of found) {
    for (const [, inner = ''] of JSON.stringify(all[name]).matchAll(/"#\/components\/schemas\/(\w+)"/g))
      found.add(inner)
  }
  return Object.fromEntries(Object.entries(all).filter(([name]) => found.has(name)))
}
