/**
 * A config that comes with a load, in place of the model's config.json until the next load: keys of config.json, or those of
 * Triton's model configuration that have a counterpart there. What only describes the model (name, platform,
 * backend, input, output, parameters) is taken and changes nothing, so that the configuration that a client was
 * told can be sent back changed.
 *
 * Source: Triton's model repository extension and model_config.proto, in its JSON form.
 */
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { MODEL_CONFIG_KEYS, ModelConfigSchema, refusePrototype } from './config.js'

/** In Protobuf's JSON a number may be a string; examples of Triton's clients send `"16"`. */
const number = z.union([z.int(), z.string().regex(/^\d+$/).transform(Number)])
const numberOrText = z.union([z.int().nonnegative(), z.string().regex(/^\d+$/)])

const tritonPolicy = z.union([
  z.strictObject({ all: z.strictObject({}) }).transform(() => 'all' as const),
  z
    .strictObject({ latest: z.strictObject({ num_versions: number.default(1) }) })
    .transform(({ latest }) => ({ latest: latest.num_versions })),
  z
    .strictObject({ specific: z.strictObject({ versions: z.array(numberOrText) }) })
    .transform(({ specific }) => ({ specific: specific.versions.map(String) })),
])

const tritonBatching = z.strictObject({
  preferred_batch_size: z.array(number).default([]),
  max_queue_delay_microseconds: number.default(0),
})

const DESCRIPTIVE = ['platform', 'backend', 'input', 'output', 'parameters', 'default_model_filename']

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** As config.json would say it. Keys of Triton's that have no counterpart stay, and are refused like any unknown key. */
export function asModelConfig(
  given: Readonly<Record<string, unknown>>,
  model: string,
): Record<string, unknown> {
  const config: Record<string, unknown> = { ...given }
  if (given.name !== undefined && given.name !== model) {
    throw new Error(`name: expected ${JSON.stringify(model)}, got ${JSON.stringify(given.name)}`)
  }
  delete config.name
  for (const key of DESCRIPTIVE) delete config[key]
  const policy = tritonPolicy.safeParse(given.version_policy)
  if (policy.success) config.version_policy = policy.data
  const maxBatchSize = number.safeParse(given.max_batch_size)
  if (maxBatchSize.success) config.max_batch_size = maxBatchSize.data
  // Triton's way to say that requests are not batched.
  if (config.max_batch_size === 0) {
    delete config.max_batch_size
    config.batching ??= false
  }
  if (isPlain(given.dynamic_batching)) {
    const batching = tritonBatching.safeParse(given.dynamic_batching)
    if (!batching.success) throw new Error(`dynamic_batching: ${z.prettifyError(batching.error)}`)
    delete config.dynamic_batching
    const { preferred_batch_size: sizes, max_queue_delay_microseconds: delayUs } = batching.data
    config.preferred_batch_sizes ??= sizes
    // Whole milliseconds are what a queue waits.
    config.max_queue_delay ??= `${Math.round(delayUs / 1000)}ms`
  }
  return config
}

/**
 * Reads the JSON of an override.
 * @throws OnecopyError REQUEST_INVALID.
 */
export function readOverride(text: string, model: string): Record<string, unknown> {
  const refuse = (why: string) => {
    const keys = MODEL_CONFIG_KEYS.join(', ')
    return new OnecopyError('REQUEST_INVALID', `parameters.config: ${why}; its keys are ${keys}`)
  }
  let value: unknown
  try {
    value = JSON.parse(text, refusePrototype)
  } catch (thrown) {
    throw refuse(`expected JSON: ${messageOf(thrown)}`)
  }
  if (!isPlain(value)) throw refuse('expected a JSON object')
  let config: Record<string, unknown>
  try {
    config = asModelConfig(value, model)
  } catch (thrown) {
    throw refuse(messageOf(thrown))
  }
  const checked = ModelConfigSchema.safeParse(config)
  if (!checked.success) throw refuse(z.prettifyError(checked.error))
  return config
}
