/** `config.json` beside a model's versions: what its operator decides, where the defaults are not right. */
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { durationMs, sizeBytes } from '../config/quantities.js'
import { messageOf, OnecopyError } from '../errors.js'

const MAX_BATCH_ROWS = 4096

const ascending = (sizes: readonly number[]) =>
  sizes.every((size, i) => i === 0 || size > (sizes[i - 1] as number))

export const ModelConfigSchema = z
  .strictObject({
    /** 'auto': as the shapes and the probe at compile time say; true and false overrule them. */
    batching: z.union([z.literal('auto'), z.boolean()]).default('auto'),
    /** Rows computed together, at most. */
    max_batch_size: z.int().min(1).max(MAX_BATCH_ROWS).default(64),
    /** Sizes to prefer where enough rows wait; ascending. */
    preferred_batch_sizes: z
      .array(z.int().min(1).max(MAX_BATCH_ROWS))
      .refine(ascending, 'expected ascending sizes')
      .default([]),
    /** How long a request may wait for company while the thread is idle. */
    max_queue_delay: durationMs.default(0),
    /** Requests that may wait, per worker; by default as --max-queue says. */
    max_queue_requests: z.int().min(1).max(1_000_000).optional(),
    /** Bytes of inputs that may wait, per worker. */
    max_queue_bytes: sizeBytes.default(256 * 1024 * 1024),
  })
  .transform((config) => ({
    batching: config.batching,
    maxBatchSize: config.max_batch_size,
    preferredBatchSizes: config.preferred_batch_sizes,
    maxQueueDelayMs: config.max_queue_delay,
    maxQueueRequests: config.max_queue_requests ?? null,
    maxQueueBytes: config.max_queue_bytes,
  }))

export type ModelConfig = z.output<typeof ModelConfigSchema>

/** The same, as it crosses to the workers. */
export const ServedModelConfigSchema = z.object({
  batching: z.union([z.literal('auto'), z.boolean()]),
  maxBatchSize: z.int().positive(),
  preferredBatchSizes: z.array(z.int().positive()),
  maxQueueDelayMs: z.number().nonnegative(),
  maxQueueRequests: z.int().positive().nullable(),
  maxQueueBytes: z.int().positive(),
})

/**
 * Reads a model's config; the defaults where there is none.
 * @throws OnecopyError REPOSITORY_INVALID naming every key that is not as expected.
 */
export async function readModelConfig(path: string): Promise<ModelConfig> {
  let value: unknown = {}
  try {
    value = JSON.parse(await readFile(path, 'utf8'))
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new OnecopyError('REPOSITORY_INVALID', `${path}: expected a JSON file: ${messageOf(thrown)}`)
    }
  }
  const parsed = ModelConfigSchema.safeParse(value)
  if (!parsed.success)
    throw new OnecopyError('REPOSITORY_INVALID', `${path}: ${z.prettifyError(parsed.error)}`)
  return parsed.data
}
