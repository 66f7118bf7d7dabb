/** `config.json` of a model: the operator's overrides of the defaults. Keys: docs/model-config.md. */
import { dirname } from 'node:path'
import * as z from 'zod'
import { durationMs, sizeBytes } from '../config/quantities.js'
import { messageOf, OnecopyError } from '../errors.js'
import { type TextDescription, TextDescriptionSchema, TextOverridesSchema } from '../text/description.js'
import { checkSample, MAX_LABEL_CHARACTERS, MAX_LABELS, readLabels, readTextFile } from './config-files.js'
import { kindOf } from './file-kind.js'

const MAX_BATCH_ROWS = 4096
const MAX_CONFIG_BYTES = 1024 * 1024
const MAX_WARM_UP_SAMPLES = 64
const MAX_WARM_UP_RUNS = 1000

const ascending = (sizes: readonly number[]) =>
  sizes.every((size, i) => i === 0 || size > (sizes[i - 1] as number))
const unlike = (words: readonly string[]) => new Set(words).size === words.length

/** Digits without leading zeros: the folder name of a version. */
export const VERSION_PATTERN = /^[1-9]\d{0,17}$/

const version = z.string().regex(VERSION_PATTERN, 'expected a version as text, such as "3"')
const runs = z.int().min(1).max(MAX_WARM_UP_RUNS)
const fileName = z.string().min(1).max(4096)
const label = z
  .string()
  .min(1)
  .max(MAX_LABEL_CHARACTERS)
  .regex(/^[^\r\n]*$/, 'expected one line')

const versionPolicy = z
  .union(
    [
      z.literal('all'),
      z.strictObject({ latest: z.int().min(1) }),
      z.strictObject({ specific: z.array(version).min(1).refine(unlike, 'expected each version once') }),
    ],
    { error: 'expected "all", {"latest": N} with N from 1, or {"specific": ["1", "3"]}' },
  )
  .transform((policy): VersionPolicy => {
    if (policy === 'all') return { kind: 'all' }
    return 'latest' in policy
      ? { kind: 'latest', count: policy.latest }
      : { kind: 'specific', versions: policy.specific }
  })

const warmUp = z
  .union(
    [
      z.int().min(0).max(MAX_WARM_UP_RUNS),
      z.array(z.union([fileName, z.strictObject({ file: fileName, runs })])).max(MAX_WARM_UP_SAMPLES),
    ],
    {
      error:
        `expected a number of runs from 0 to ${MAX_WARM_UP_RUNS}, or at most ${MAX_WARM_UP_SAMPLES} sample files: ` +
        '"file.json" or {"file": "file.json", "runs": N}',
    },
  )
  .transform((value): WarmUp => {
    if (typeof value === 'number') return { generatedRuns: value, samples: [] }
    const samples = value.map((one) =>
      typeof one === 'string' ? { path: one, runs: 1 } : { path: one.file, runs: one.runs },
    )
    return { generatedRuns: 0, samples }
  })

const labels = z.record(
  z.string(),
  z.union([fileName, z.array(label).min(1).max(MAX_LABELS)], {
    error: `expected a list of at most ${MAX_LABELS} labels of one line each, or the name of a text file with one label per line`,
  }),
)

export type VersionPolicy =
  | { readonly kind: 'all' }
  | { readonly kind: 'latest'; readonly count: number }
  | { readonly kind: 'specific'; readonly versions: readonly string[] }

export interface WarmUp {
  /** Number of runs with generated inputs. */
  readonly generatedRuns: number
  /** Validated files, each with the JSON body of an infer request. */
  readonly samples: readonly { readonly path: string; readonly runs: number }[]
}

const FileSchema = z.strictObject({
  /**
   * 'auto': decided by the shapes and the batchability probe at compile time; true and false override both.
   */
  batching: z.union([z.literal('auto'), z.boolean()]).default('auto'),
  /** Maximum rows per batch. */
  max_batch_size: z.int().min(1).max(MAX_BATCH_ROWS).default(64),
  /** Batch sizes to prefer when enough rows are queued; ascending. */
  preferred_batch_sizes: z
    .array(z.int().min(1).max(MAX_BATCH_ROWS))
    .refine(ascending, 'expected ascending sizes')
    .default([]),
  /** How long a request may wait for more rows while the inference thread is idle. */
  max_queue_delay: durationMs.default(0),
  /** Queue capacity in requests per worker; the default is --max-queue. */
  max_queue_requests: z.int().min(1).max(1_000_000).optional(),
  /** Queue capacity in input bytes per worker. */
  max_queue_bytes: sizeBytes.default(256 * 1024 * 1024),
  /** Threads per inference; the default is --threads. */
  threads: z.int().min(1).max(1024).optional(),
  /**
   * Which versions in the repository are served. The default is all, so adding a config removes no version.
   */
  version_policy: versionPolicy.default({ kind: 'all' }),
  /** Runs before a worker reports the model as ready. */
  warm_up: warmUp.default({ generatedRuns: 0, samples: [] }),
  /** Class names by output, in the order of the output's elements. */
  labels: labels.default({}),
  /** Of a text model: what is not to be as its folder says. */
  text: TextOverridesSchema.default({}),
})

export type ModelConfigKey = keyof typeof FileSchema.shape
export const MODEL_CONFIG_KEYS = Object.keys(FileSchema.shape) as ModelConfigKey[]

/** File names are not resolved yet. */
export const ModelConfigSchema = FileSchema.transform((config) => ({
  batching: config.batching,
  maxBatchSize: config.max_batch_size,
  preferredBatchSizes: config.preferred_batch_sizes,
  maxQueueDelayMs: config.max_queue_delay,
  maxQueueRequests: config.max_queue_requests ?? null,
  maxQueueBytes: config.max_queue_bytes,
  threads: config.threads ?? null,
  versionPolicy: config.version_policy,
  warmUp: config.warm_up,
  labels: config.labels,
  textOverrides: config.text,
  /** Read by who knows the folder. */
  text: null as TextDescription | null,
}))

const VersionPolicySchema: z.ZodType<VersionPolicy> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('all') }),
  z.object({ kind: z.literal('latest'), count: z.int().positive() }),
  z.object({ kind: z.literal('specific'), versions: z.array(z.string()) }),
])

/**
 * The validated config with labels loaded and sample paths absolute. It is sent to the workers, which only
 * report the version policy.
 */
export const ServedModelConfigSchema = z.object({
  batching: z.union([z.literal('auto'), z.boolean()]),
  maxBatchSize: z.int().positive(),
  preferredBatchSizes: z.array(z.int().positive()),
  maxQueueDelayMs: z.number().nonnegative(),
  maxQueueRequests: z.int().positive().nullable(),
  maxQueueBytes: z.int().positive(),
  threads: z.int().positive().nullable(),
  warmUp: z.object({
    generatedRuns: z.int().nonnegative(),
    samples: z.array(z.object({ path: z.string(), runs: z.int().positive() })),
  }),
  labels: z.record(z.string(), z.array(z.string())),
  versionPolicy: VersionPolicySchema,
  textOverrides: TextOverridesSchema,
  /** Of a text model; null of any other. */
  text: TextDescriptionSchema.nullable(),
})

export type ServedModelConfig = z.output<typeof ServedModelConfigSchema>

/** Prefixes errors with the key of the config. */
async function withKey<T>(key: ModelConfigKey, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (thrown) {
    throw new Error(`${key}: ${messageOf(thrown)}`)
  }
}

async function readFiles(
  folder: string,
  config: z.output<typeof ModelConfigSchema>,
): Promise<ServedModelConfig> {
  const samples: { path: string; runs: number }[] = []
  for (const sample of config.warmUp.samples) {
    const path = await withKey('warm_up', () => checkSample(folder, sample.path))
    samples.push({ path, runs: sample.runs })
  }
  const read: [string, string[]][] = []
  for (const [output, given] of Object.entries(config.labels)) {
    const list = typeof given === 'string' ? await withKey('labels', () => readLabels(folder, given)) : given
    read.push([output, list])
  }
  return { ...config, warmUp: { ...config.warmUp, samples }, labels: Object.fromEntries(read) }
}

/** Schemas leave such a key out: it would be lost without a word. */
export function refusePrototype(key: string, value: unknown): unknown {
  if (key === '__proto__') throw new Error('expected no key "__proto__"')
  return value
}

/**
 * Reads a model's config and the files it names; returns the defaults if there is no config.
 * @throws OnecopyError REPOSITORY_INVALID naming every invalid key.
 */
export async function readModelConfig(path: string): Promise<ServedModelConfig> {
  let value: unknown = {}
  try {
    value = JSON.parse(await readTextFile(path, MAX_CONFIG_BYTES), refusePrototype)
  } catch (thrown) {
    const found = await kindOf(path)
    // A broken link must not lead to serving with defaults instead of the operator's settings.
    const why = found.kind === 'unreadable' ? `found ${found.what}` : messageOf(thrown)
    if (found.kind !== 'absent')
      throw new OnecopyError('REPOSITORY_INVALID', `${path}: expected a JSON file: ${why}`)
  }
  return await checkModelConfig(value, path)
}

/**
 * Checks what is not read from a file as if it stood at `path`; the files that it names are looked for beside that.
 * @throws OnecopyError REPOSITORY_INVALID naming every key that is not as expected.
 */
export async function checkModelConfig(value: unknown, path: string): Promise<ServedModelConfig> {
  const parsed = ModelConfigSchema.safeParse(value)
  if (!parsed.success)
    throw new OnecopyError('REPOSITORY_INVALID', `${path}: ${z.prettifyError(parsed.error)}`)
  try {
    return await readFiles(dirname(path), parsed.data)
  } catch (thrown) {
    throw new OnecopyError('REPOSITORY_INVALID', `${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
}
