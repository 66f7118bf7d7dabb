/** Calls that describe the server and its models. */
import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { extensionsOf } from '../http/routes/health.js'
import { modelStatistics } from '../http/routes/statistics.js'
import { describeTensor, requireModel, versionsOf } from '../inference/model-facts.js'
import type { ServedModel } from '../inference/service.js'
import { type ModelConfiguration, PLATFORM } from '../protocol/v2/configuration.js'
import type { GrpcContext } from './call.js'
import {
  DataType,
  type ModelConfig,
  ModelConfigSchema,
  type ModelInputSchema,
  type ModelMetadataResponse,
  ModelMetadataResponseSchema,
  type ModelOutputSchema,
  type ModelStatisticsResponse,
  ModelStatisticsResponseSchema,
  type ModelVersionPolicySchema,
  type ServerMetadataResponse,
  ServerMetadataResponseSchema,
} from './schema/inference_pb.js'

interface Named {
  readonly name: string
  /** Empty: the newest. */
  readonly version: string
}

function modelOf(context: GrpcContext, { name, version }: Named): ServedModel {
  const wanted = { name, version: version === '' ? undefined : version }
  return requireModel(context.models, wanted, { isForInference: false })
}

export function serverMetadata(context: GrpcContext): ServerMetadataResponse {
  return create(ServerMetadataResponseSchema, { ...context.identity, extensions: extensionsOf(context) })
}

export function isModelReady({ models, isDraining }: GrpcContext, { name, version }: Named): boolean {
  const wanted = version === '' ? undefined : version
  return !isDraining() && models.outOfService(name, wanted) === null && models.find(name, wanted) !== null
}

export function modelMetadata(context: GrpcContext, named: Named): ModelMetadataResponse {
  const model = modelOf(context, named)
  const tensors = (specs: ServedModel['inputs']) =>
    specs
      .map(describeTensor)
      .map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(BigInt) }))
  return create(ModelMetadataResponseSchema, {
    name: model.name,
    versions: [...context.models.versions(model.name)],
    platform: PLATFORM,
    inputs: tensors(model.inputs),
    outputs: tensors(model.outputs),
  })
}

type ConfiguredTensor = ModelConfiguration['input'][number]

function configTensor({
  name,
  data_type,
  dims,
  reshape,
  optional,
}: ConfiguredTensor): MessageInitShape<typeof ModelInputSchema> {
  return {
    ...{ name, dataType: DataType[data_type as keyof typeof DataType], dims: dims.map(BigInt) },
    ...(reshape === undefined ? {} : { reshape: { shape: reshape.shape.map(BigInt) } }),
    ...(optional === undefined ? {} : { optional }),
  }
}

function outputTensor(tensor: ConfiguredTensor): MessageInitShape<typeof ModelOutputSchema> {
  const { name, data_type, dims, reshape } = tensor
  return {
    ...{ name, dataType: DataType[data_type as keyof typeof DataType], dims: dims.map(BigInt) },
    ...(reshape === undefined ? {} : { reshape: { shape: reshape.shape.map(BigInt) } }),
  }
}

/** The version policy in the JSON form of the configuration. */
interface PolicyJson {
  readonly latest?: { readonly num_versions: number }
  readonly specific?: { readonly versions: readonly number[] }
}

function policyOf({ latest, specific }: PolicyJson): MessageInitShape<typeof ModelVersionPolicySchema> {
  if (latest !== undefined)
    return { policyChoice: { case: 'latest', value: { numVersions: latest.num_versions } } } as const
  if (specific !== undefined)
    return { policyChoice: { case: 'specific', value: { versions: specific.versions.map(BigInt) } } } as const
  return { policyChoice: { case: 'all', value: {} } } as const
}

export function modelConfig(context: GrpcContext, named: Named): ModelConfig {
  const { configuration } = modelOf(context, named)
  const { dynamic_batching: batching } = configuration
  const { name, platform, backend } = configuration
  return create(ModelConfigSchema, {
    ...{ name, platform, backend, maxBatchSize: configuration.max_batch_size },
    versionPolicy: policyOf(configuration.version_policy),
    input: configuration.input.map(configTensor),
    output: configuration.output.map(outputTensor),
    ...(batching === undefined
      ? {}
      : {
          dynamicBatching: {
            preferredBatchSize: [...batching.preferred_batch_size],
            maxQueueDelayMicroseconds: BigInt(batching.max_queue_delay_microseconds),
          },
        }),
    parameters: Object.fromEntries(
      Object.entries(configuration.parameters).map(([key, { string_value }]) => [
        key,
        { stringValue: string_value },
      ]),
    ),
  })
}

type Duration = { readonly count: number; readonly ns: number }

function duration({ count, ns }: Duration) {
  return { count: BigInt(count), ns: BigInt(ns) }
}

function statisticsMessage(model: ServedModel) {
  const facts = modelStatistics(model)
  const { inference_stats: stats } = facts
  return {
    ...{ name: facts.name, version: facts.version },
    lastInference: BigInt(Math.round(facts.last_inference)),
    inferenceCount: BigInt(facts.inference_count),
    executionCount: BigInt(facts.execution_count),
    inferenceStats: {
      success: duration(stats.success),
      fail: duration(stats.fail),
      queue: duration(stats.queue),
      computeInput: duration(stats.compute_input),
      computeInfer: duration(stats.compute_infer),
      computeOutput: duration(stats.compute_output),
      cacheHit: duration(stats.cache_hit),
      cacheMiss: duration(stats.cache_miss),
    },
    batchStats: facts.batch_stats.map((batch) => ({
      batchSize: BigInt(batch.batch_size),
      computeInput: duration(batch.compute_input),
      computeInfer: duration(batch.compute_infer),
      computeOutput: duration(batch.compute_output),
    })),
    memoryUsage: facts.memory_usage.map(({ type, id, byte_size }) => ({
      ...{ type, id: BigInt(id), byteSize: BigInt(byte_size) },
    })),
  }
}

/** Statistics of one version, of all versions of a model, or of all models. */
export function statistics(context: GrpcContext, { name, version }: Named): ModelStatisticsResponse {
  const { models } = context
  const chosen =
    name === ''
      ? models.names().flatMap((one) => versionsOf(models, one))
      : version === ''
        ? versionsOf(models, modelOf(context, { name, version }).name)
        : [modelOf(context, { name, version })]
  return create(ModelStatisticsResponseSchema, { modelStats: chosen.map(statisticsMessage) })
}
