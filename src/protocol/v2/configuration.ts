/**
 * A model's configuration as Triton's ModelConfig, without the fields that have no counterpart here.
 *
 * Source: Triton's model configuration extension; model_config.proto.
 */
import type { Datatype, TensorSpec } from '../../tensor.js'
import type { ModelSpec } from './plan.js'

export const PLATFORM = 'onnx_onnxv1'
const BACKEND = 'onnxruntime'

export interface ConfigurationFacts {
  readonly model: ModelSpec
  /** Rows computed together at most; 0 where the first dimension is not a batch, which shapes then keep. */
  readonly maxBatchSize: number
  /** How requests are gathered; null where each is computed alone. */
  readonly batching: {
    readonly preferredBatchSizes: readonly number[]
    readonly maxQueueDelayMs: number
  } | null
  readonly versionPolicy:
    | { readonly kind: 'all' }
    | { readonly kind: 'latest'; readonly count: number }
    | { readonly kind: 'specific'; readonly versions: readonly string[] }
  /** Threads inside one inference. */
  readonly threads: number
  /** Parameters beyond Triton's, by name. */
  readonly notes?: Readonly<Record<string, string>>
}

interface ConfiguredTensor {
  readonly name: string
  readonly data_type: string
  readonly dims: readonly number[]
  /** The shape without the batch where that is a scalar, which `dims` cannot express. */
  readonly reshape?: { readonly shape: readonly number[] }
  /** There where an input need not be sent; its dimensions are then all of them, batch or not. */
  readonly optional?: true
}

export interface ModelConfiguration {
  readonly name: string
  readonly platform: string
  readonly backend: string
  readonly max_batch_size: number
  readonly input: readonly ConfiguredTensor[]
  readonly output: readonly ConfiguredTensor[]
  readonly version_policy: object
  readonly dynamic_batching?: {
    readonly preferred_batch_size: readonly number[]
    readonly max_queue_delay_microseconds: number
  }
  readonly parameters: Readonly<Record<string, { readonly string_value: string }>>
}

function typeOf(datatype: Datatype): string {
  return `TYPE_${datatype === 'BYTES' ? 'STRING' : datatype}`
}

function tensorOf({ name, datatype, shape, optional }: TensorSpec, isBatched: boolean): ConfiguredTensor {
  if (optional) return { name, data_type: typeOf(datatype), dims: shape ?? [-1], optional }
  // As in the metadata: a tensor of unknown rank has no form here.
  const dims = (shape ?? [-1]).slice(isBatched ? 1 : 0)
  const type = { name, data_type: typeOf(datatype) }
  return dims.length === 0 ? { ...type, dims: [1], reshape: { shape: [] } } : { ...type, dims }
}

function policyOf(policy: ConfigurationFacts['versionPolicy']): object {
  if (policy.kind === 'all') return { all: {} }
  if (policy.kind === 'latest') return { latest: { num_versions: policy.count } }
  return { specific: { versions: policy.versions.map(Number) } }
}

export function modelConfiguration(facts: ConfigurationFacts): ModelConfiguration {
  const { model, maxBatchSize, batching, versionPolicy, threads, notes = {} } = facts
  const isBatched = maxBatchSize > 0
  return {
    name: model.name,
    platform: PLATFORM,
    backend: BACKEND,
    version_policy: policyOf(versionPolicy),
    max_batch_size: maxBatchSize,
    input: model.inputs.map((spec) => tensorOf(spec, isBatched)),
    output: model.outputs.map((spec) => tensorOf(spec, isBatched)),
    ...(batching === null
      ? {}
      : {
          dynamic_batching: {
            preferred_batch_size: batching.preferredBatchSizes,
            max_queue_delay_microseconds: Math.round(batching.maxQueueDelayMs * 1000),
          },
        }),
    parameters: {
      intra_op_thread_count: { string_value: String(threads) },
      ...Object.fromEntries(Object.entries(notes).map(([name, text]) => [name, { string_value: text }])),
    },
  }
}
