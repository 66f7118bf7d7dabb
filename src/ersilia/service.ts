/**
 * A served bundle: its predictor with verified examples, behind the cache, the jobs and the circuit breaker.
 */
import { OnecopyError } from '../errors.js'
import type { Log } from '../log.js'
import type { TensorSpec } from '../tensor.js'
import { Breaker } from './breaker.js'
import { type Bundle, isVariable, readBundle } from './bundle.js'
import { checkExamples } from './check-examples.js'
import { JobStore } from './jobs.js'
import { NativePredictor, type RunModel } from './native-predictor.js'
import type { Row } from './orient.js'
import type { PredictOptions, Predictor } from './predictor.js'
import { memoryCache, type ResultCache, redisCache } from './result-cache.js'
import { SpawnedPredictor } from './script-predictor.js'
import type { WorkerNotes } from './workers.js'

export interface ServiceOptions {
  readonly bundlePath: string
  /** The model that serves the bundle; undefined if it has no manifest. */
  readonly model:
    | { readonly inputs: readonly TensorSpec[]; readonly outputs: readonly TensorSpec[] }
    | undefined
  /** Runs the model for requests. */
  readonly run: RunModel
  /** Runs the model for the example check, without counting requests. */
  readonly runUncounted: RunModel
  readonly workers: WorkerNotes
  /** The server's folder in shared memory. */
  readonly serverFolder: string
  /** Empty: rows are cached in memory. */
  readonly redisUrl: string
  readonly maxQueuedRequests: number
  readonly log: Log
}

export interface CacheFlags {
  readonly fetchCache: boolean
  readonly saveCache: boolean
  readonly cacheOnly: boolean
}

interface Parts {
  readonly bundle: Bundle
  readonly maxActive: number
  readonly predictor: Predictor
  readonly cache: ResultCache
  readonly jobs: JobStore
  readonly workers: WorkerNotes
}

async function openPredictor(
  bundle: Bundle,
  run: RunModel,
  { model, maxQueuedRequests, log }: ServiceOptions,
): Promise<Predictor> {
  const { manifest } = bundle
  if (manifest === null) return new SpawnedPredictor(bundle, maxQueuedRequests)
  if (model === undefined)
    throw new OnecopyError('MODEL_NOT_READY', `the checkpoint of bundle ${bundle.root} is not loaded`)
  return await NativePredictor.open({
    bundle,
    manifest,
    ...model,
    run,
    onTrapped: (reason) => log.warn({ reason }, 'a molecule was rejected because it crashed the featurizer'),
  })
}

export class ErsiliaService {
  readonly bundle: Bundle
  readonly jobs: JobStore
  readonly workers: WorkerNotes
  readonly breaker = new Breaker()
  readonly #predictor: Predictor
  readonly #cache: ResultCache
  /** Limit for requests that are featurized, computed or queued at the same time. */
  readonly #maxActive: number
  #active = 0

  private constructor({ bundle, predictor, cache, jobs, workers, maxActive }: Parts) {
    this.bundle = bundle
    this.#maxActive = maxActive
    this.jobs = jobs
    this.workers = workers
    this.#predictor = predictor
    this.#cache = cache
  }

  /**
   * Reads the bundle, opens its predictor and checks that it reproduces the examples.
   * @throws OnecopyError BUNDLE_INVALID, TRANSFORM_UNAVAILABLE, EXAMPLES_NOT_REPRODUCED, and of the model.
   */
  static async open(options: ServiceOptions): Promise<ErsiliaService> {
    const { log, serverFolder, redisUrl: url } = options
    const bundle = await readBundle(options.bundlePath)
    const identifier = bundle.card.Identifier
    let run = options.runUncounted
    const predictor = await openPredictor(bundle, (...call) => run(...call), options)
    try {
      if (bundle.manifest !== null) {
        const molecules = await checkExamples(bundle, predictor)
        if (molecules === 0)
          log.warn({ bundle: bundle.root }, 'the bundle has no examples and is served unchecked')
        else log.debug({ bundle: bundle.root, molecules }, 'the bundle reproduces its examples')
      }
      run = options.run
      return new ErsiliaService({
        bundle,
        maxActive: options.maxQueuedRequests,
        predictor,
        cache:
          url === '' ? memoryCache() : await redisCache({ url, identifier, columns: bundle.columns, log }),
        jobs: await JobStore.open(serverFolder),
        workers: options.workers,
      })
    } catch (thrown) {
      await predictor.close()
      throw thrown
    }
  }

  /** Whether the model stays in memory instead of being loaded by every request. */
  get isResident(): boolean {
    return this.bundle.manifest !== null
  }

  /**
   * Returns a row for every input.
   * @throws OnecopyError QUEUE_FULL, BREAKER_OPEN, and of the predictor.
   */
  async rows(inputs: readonly string[], flags: CacheFlags, options: PredictOptions): Promise<readonly Row[]> {
    if (this.#active >= this.#maxActive)
      throw new OnecopyError('QUEUE_FULL', `${this.#active} requests are in flight`, { retryAfterSeconds: 1 })
    this.#active++
    try {
      return await this.#rows(inputs, flags, options)
    } finally {
      this.#active--
    }
  }

  async #rows(
    inputs: readonly string[],
    flags: CacheFlags,
    options: PredictOptions,
  ): Promise<readonly Row[]> {
    const compute = (wanted: readonly string[]) =>
      this.breaker.through(() => this.#predictor.predict(wanted, options))
    if (!flags.fetchCache || isVariable(this.bundle)) return await compute(inputs)
    // Without Redis there is no cache that could be all there is to know.
    const cacheOnly = flags.cacheOnly && this.#cache.isShared
    const known = await this.#cache.fetch(inputs)
    const nulls = this.bundle.columns.map(() => null)
    if (cacheOnly) return known.map((row) => row ?? nulls)
    const missing = [...new Set(inputs.filter((_, i) => known[i] === null))]
    if (missing.length === 0) return known.map((row) => row ?? nulls)
    const computed = await compute(missing)
    const byInput = new Map(missing.map((input, i) => [input, computed[i] as Row]))
    if (flags.saveCache) {
      // A row of nulls may result from a timeout, so it is not cached.
      const worthy = missing.filter((input) => byInput.get(input)?.some((cell) => cell !== null))
      await this.#cache.save(
        worthy,
        worthy.map((input) => byInput.get(input) as Row),
      )
    }
    return inputs.map((input, i) => known[i] ?? byInput.get(input) ?? nulls)
  }

  /** Finishes the jobs, then closes everything it opened. */
  async close(): Promise<void> {
    await this.jobs.close()
    await this.#cache.close()
    await this.#predictor.close()
  }
}
