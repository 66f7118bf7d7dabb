/** How a model is served, from its config, the compile results and the server's options. */
import type { BatchingPolicy } from '../batch/queued-model.js'
import type { ServingConfig } from '../config/config.js'
import { type ModelConfiguration, modelConfiguration } from '../protocol/v2/configuration.js'
import type { ServedModelConfig } from '../repository/config.js'
import type { SegmentHeader } from '../segment/layout.js'
import { requiredOf } from '../tensor.js'

/** Defaults for settings that a model's config omits. */
type ServingDefaults = Pick<ServingConfig, 'threads' | 'maxQueuedRequests'>

interface ConfiguredModel {
  readonly name: string
  readonly version: string
  readonly config: ServedModelConfig
}

/** The settings of the model's config, completed with the compile results. */
export function batchingPolicy(
  header: SegmentHeader,
  config: ServedModelConfig,
  serving: ServingDefaults,
): BatchingPolicy {
  return {
    isBatchable: config.batching === 'auto' ? header.batching.batchable : config.batching,
    optionalInputs: new Set(header.inputs.filter(({ optional }) => optional).map(({ name }) => name)),
    maxBatchSize: config.maxBatchSize,
    preferredBatchSizes: config.preferredBatchSizes,
    maxQueueDelayMs: config.maxQueueDelayMs,
    queue: {
      maxRequests: config.maxQueueRequests ?? serving.maxQueuedRequests,
      maxBytes: config.maxQueueBytes,
    },
  }
}

/** Whether requests are batched, and why, as text. */
function batchingNotes(
  { batching }: SegmentHeader,
  choice: ServedModelConfig['batching'],
): Record<string, string> {
  const { batchable, reason, preventedBy } = batching
  const found = `${batchable ? 'yes' : 'no'}: ${reason}`
  if (choice === false)
    return { batching: `no: "batching" is false in the model's config (detected: ${found})` }
  if (choice === true && !batchable) {
    return {
      batching: `yes: "batching" is true in the model's config (detected: ${found})`,
      ...nodeNotes(preventedBy),
    }
  }
  return { batching: found, ...nodeNotes(preventedBy) }
}

function nodeNotes(preventedBy: SegmentHeader['batching']['preventedBy']): Record<string, string> {
  if (preventedBy === undefined) return {}
  const { node, operator, remedy } = preventedBy
  return { batching_prevented_by: `${node} (${operator})`, batching_remedy: remedy }
}

/**
 * A model's configuration for clients. Whether its first dimension is a batch is known even if batching is
 * off.
 */
export function configurationOf(
  { name, version, config }: ConfiguredModel,
  header: SegmentHeader,
  serving: ServingDefaults,
): ModelConfiguration {
  const { inputs, outputs } = header
  const { isBatchable, maxBatchSize, preferredBatchSizes, maxQueueDelayMs } = batchingPolicy(
    header,
    config,
    serving,
  )
  const isVariable = [...requiredOf(inputs), ...outputs].every(({ shape }) => shape?.[0] === -1)
  const isBatched = isVariable && (isBatchable || header.batching.batchable)
  return modelConfiguration({
    model: { name, version, inputs, outputs },
    maxBatchSize: isBatched ? maxBatchSize : 0,
    batching: isBatched && isBatchable && maxBatchSize > 1 ? { preferredBatchSizes, maxQueueDelayMs } : null,
    versionPolicy: config.versionPolicy,
    threads: config.threads ?? serving.threads,
    notes: batchingNotes(header, config.batching),
  })
}
