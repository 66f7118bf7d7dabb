/**
 * Synchronizes the catalogue with the model repository: automatically if it is watched, else on
 * request.
 *
 * A new version is loaded, and a removed one unloaded, only after its files have not changed for a
 * while: it may still be copied. A failed load is retried when the files change. A problem with one
 * entry does not affect other entries. Its served versions stay until the entry is fixed or
 * removed.
 */
import { type FSWatcher, watch } from 'chokidar'
import type { IndexEntry } from '../../src/api/schemas.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { withDeadline } from '../../src/lifecycle.js'
import type { Log } from '../../src/log.js'
import { readOverride } from '../../src/repository/config-override.js'
import {
  type ConfigOverride,
  type ModelSource,
  type RepositoryProblem,
  type RepositoryScan,
  scanRepository,
} from '../../src/repository/repository.js'
import type { Catalogue } from './catalogue.js'
import { combineFailures, problemError } from './failures.js'
import { ModelFingerprints } from './model-fingerprints.js'
import { mergeIndex, versionKey } from './repository-index.js'
import { RepositoryProblems } from './repository-problems.js'
import { STABLE_MS, Stability } from './stability.js'

/**
 * Some file systems, such as NFS, report no changes, and a watch can miss a folder replaced by a
 * rename.
 */
const RESCAN_MS = 5000
const WATCH_TIMEOUT_MS = 30_000
/** NAME, VERSION, a folder of external data and its files. Periodic scans cover deeper levels. */
const WATCHED_DEPTH = 3

const EMPTY_SCAN: RepositoryScan = { sources: [], problems: [] }

export interface RepositoryControlOptions {
  /** Repositories, model folders and model files; null for a bundle or one model with `load`. */
  readonly modelPaths: readonly string[] | null
  readonly catalogue: Catalogue
  readonly log: Log
}

export class RepositoryControl {
  readonly #options: RepositoryControlOptions
  readonly #problems: RepositoryProblems
  readonly #fingerprints = new ModelFingerprints()
  readonly #stability = new Stability()
  /** Fingerprint of each version at its last load. */
  readonly #loadedFingerprints = new Map<string, string>()
  /** Versions whose last load failed. */
  readonly #failed = new Set<string>()
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #isSynchronizing = false
  #isClosed = false
  #lastFailure = ''

  constructor(options: RepositoryControlOptions) {
    this.#options = options
    this.#problems = new RepositoryProblems(options.log)
  }

  /** Number of versions and entries in the repository that cannot be served. */
  get invalidEntries(): number {
    return new Set([...this.#problems.keys, ...this.#failed]).size
  }

  /** Records the models found at startup, with their fingerprints before the load. */
  async initialize({ sources, problems }: RepositoryScan): Promise<void> {
    this.#problems.take(problems, { isPatient: false })
    for (const source of sources)
      this.#loadedFingerprints.set(versionKey(source), await this.#fingerprints.of(source))
  }

  /** Records a version that failed to load at startup. */
  noteFailed(source: ModelSource): void {
    this.#failed.add(versionKey(source))
  }

  /** Starts to apply changes of the repository. */
  async watch(): Promise<void> {
    const { modelPaths, log } = this.#options
    if (modelPaths === null) return
    let hasFailed = false
    // Periodic scans find what a watch misses, only later. A broken link must not stop the rest.
    const onFailure = (thrown: unknown) => {
      const seconds = RESCAN_MS / 1000
      if (!hasFailed)
        log.warn(
          { reason: messageOf(thrown) },
          `changes of the repository may be detected up to ${seconds} s late`,
        )
      hasFailed = true
    }
    const watcher = watch([...modelPaths], {
      ...{ ignoreInitial: true, followSymlinks: true, depth: WATCHED_DEPTH },
      // The scan reports unreadable entries.
      ignorePermissionErrors: true,
    })
    this.#watcher = watcher
    watcher.on('all', () => this.#scheduleScan(STABLE_MS))
    watcher.on('error', onFailure)
    // Changes before the watch is ready are not reported.
    const isWatching = new Promise((resolve) => watcher.once('ready', () => resolve(undefined)))
    await withDeadline(isWatching, WATCH_TIMEOUT_MS, `the watch on ${modelPaths.join(', ')}`).catch(onFailure)
    this.#scheduleScan(0)
  }

  #scheduleScan(delayMs: number): void {
    if (this.#isClosed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#synchronize(), delayMs)
  }

  async #synchronize(): Promise<void> {
    if (this.#isSynchronizing) {
      this.#scheduleScan(STABLE_MS)
      return
    }
    this.#isSynchronizing = true
    let isSettled = true
    try {
      isSettled = await this.#applyChanges()
      this.#lastFailure = ''
    } catch (thrown) {
      // The repository itself cannot be read. The next scan retries.
      const failure = messageOf(thrown)
      if (failure !== this.#lastFailure)
        this.#options.log.error({ reason: failure }, 'cannot scan the model repository')
      this.#lastFailure = failure
    } finally {
      this.#isSynchronizing = false
    }
    this.#scheduleScan(isSettled ? RESCAN_MS : STABLE_MS)
  }

  async #scan(override: ConfigOverride | null = null): Promise<RepositoryScan> {
    const { modelPaths } = this.#options
    return modelPaths === null ? EMPTY_SCAN : await scanRepository(modelPaths, override)
  }

  /**
   * Loads new and changed versions and unloads removed ones. Returns false if files are still
   * changing.
   */
  async #applyChanges(): Promise<boolean> {
    const { catalogue } = this.#options
    const scan = await this.#scan()
    this.#problems.take(scan.problems, { isPatient: true })
    let isSettled = !this.#problems.isPending()
    for (const source of scan.sources) {
      const key = versionKey(source)
      const fingerprint = await this.#fingerprints.of(source)
      if (fingerprint === this.#loadedFingerprints.get(key)) continue
      if (!this.#stability.isStable(key, fingerprint)) {
        isSettled = false
        continue
      }
      this.#loadedFingerprints.set(key, fingerprint)
      // The index, the log and the metrics report the failure.
      await this.#load(source).catch(() => {})
    }
    for (const served of catalogue.served) {
      if (this.#shouldStay(served, scan)) continue
      if (!this.#stability.isStable(versionKey(served), 'gone')) {
        isSettled = false
        continue
      }
      this.#loadedFingerprints.delete(versionKey(served))
      // It may already be unloaded.
      await catalogue.unload(served).catch(() => {})
    }
    this.#forgetGone(scan)
    return isSettled
  }

  /** Whether a served version stays. */
  #shouldStay(
    { name, version }: { name: string; version: string },
    { sources, problems }: RepositoryScan,
  ): boolean {
    const inRepository = sources.filter((source) => source.name === name)
    if (inRepository.some((source) => source.version === version)) return true
    const invalid = problems.filter((problem) => problem.name === name)
    // The version or its entry became invalid: its served generation stays.
    if (invalid.some((problem) => problem.version === null || problem.version === version)) return true
    const served = new Set(this.#options.catalogue.served.map(versionKey))
    const isServed = (source: ModelSource) => served.has(versionKey(source))
    // The replacement is not served: keep the old version. A replacement that failed is not waited
    // for.
    if (inRepository.length + invalid.length > 0 && !inRepository.some(isServed)) return true
    const isDone = (source: ModelSource) => isServed(source) || this.#failed.has(versionKey(source))
    return !inRepository.every(isDone) || this.#problems.isPending(name)
  }

  /** Drops the state of versions that are neither in the repository nor served. */
  #forgetGone({ sources, problems }: RepositoryScan): void {
    if (this.#options.modelPaths === null) return
    const present = new Set(sources.map(versionKey))
    const known = new Set([...present, ...this.#options.catalogue.served.map(versionKey)])
    this.#fingerprints.keep(sources)
    this.#stability.keep(known)
    for (const key of this.#loadedFingerprints.keys())
      if (!known.has(key)) this.#loadedFingerprints.delete(key)
    for (const key of this.#failed) if (!present.has(key)) this.#failed.delete(key)
    const invalid = new Set(problems.map(({ name }) => name))
    this.#options.catalogue.forget((entry) => !present.has(versionKey(entry)) && !invalid.has(entry.name))
  }

  async #load(source: ModelSource): Promise<void> {
    const key = versionKey(source)
    try {
      await this.#options.catalogue.load(source)
      this.#failed.delete(key)
    } catch (thrown) {
      this.#failed.add(key)
      throw thrown
    }
  }

  /**
   * Serves every version of a model as it is in the repository. One that fails does not affect the
   * others. `config` is JSON that replaces its config.json until the next load.
   * @throws OnecopyError MODEL_NOT_FOUND, REQUEST_INVALID (config), REPOSITORY_INVALID, or that of
   *   the load.
   */
  async load(name: string, config: string | null): Promise<void> {
    const { catalogue } = this.#options
    const override = config === null ? null : { model: name, config: readOverride(config, name) }
    const scan = await this.#scan(override)
    // An invalid override is not a problem of the repository.
    if (override === null) this.#problems.take(scan.problems, { isPatient: false })
    const isOfName = (one: ModelSource | RepositoryProblem) => one.name === name
    const [sources, problems] = [scan.sources.filter(isOfName), scan.problems.filter(isOfName)]
    if (sources.length + problems.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name)} in the repository`)
    const failures: unknown[] = problems.map(problemError)
    for (const source of sources) await this.#load(source).catch((thrown) => failures.push(thrown))
    for (const served of catalogue.served)
      if (served.name === name && !this.#shouldStay(served, scan)) await catalogue.unload(served)
    this.#forgetGone(scan)
    if (failures.length > 0) throw combineFailures(failures)
  }

  /** @throws OnecopyError MODEL_NOT_FOUND if no version is served. */
  async unload(name: string): Promise<void> {
    const { catalogue } = this.#options
    const served = catalogue.served.filter((one) => one.name === name)
    if (served.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `model ${JSON.stringify(name)} is not served`)
    for (const one of served) await catalogue.unload(one)
  }

  /** The repository index: known versions, other entries of the repository, and their problems. */
  async index(): Promise<IndexEntry[]> {
    const scan = await this.#scan().catch(() => null)
    // Without a scan, removed versions cannot be detected.
    if (scan !== null) this.#forgetGone(scan)
    return mergeIndex(this.#options.catalogue.index, scan ?? EMPTY_SCAN)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#watcher?.close()
  }
}
