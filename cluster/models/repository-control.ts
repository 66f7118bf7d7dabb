/**
 * Keeps the catalogue as the model repository is: by itself where it is watched, on request otherwise.
 *
 * A version that is still being copied is not taken, and one that is gone is not unloaded, before it has looked so for a
 * while. What fails to load is tried again when it looks different. What is wrong with one entry of the repository
 * concerns that one: what is served of it stays until it is mended or removed, the others are followed.
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
import { allInOne, problemError } from './failures.js'
import { ModelFingerprints } from './model-fingerprints.js'
import { mergeIndex, versionKey } from './repository-index.js'
import { RepositoryProblems } from './repository-problems.js'
import { STABLE_MS, Stability } from './stability.js'

/** Some file systems (NFS, some volumes) say nothing when they change, and a folder replaced by a rename can slip through a watch. */
const LOOK_AGAIN_MS = 5000
const WATCH_TIMEOUT_MS = 30_000
/** NAME, VERSION, a folder of external data there, and its files; what is deeper is found by looking again. */
const WATCHED_DEPTH = 3

const NOTHING: RepositoryScan = { sources: [], problems: [] }

export interface RepositoryControlOptions {
  /** Null: there is none, one bundle or model is served. */
  readonly modelsDir: string | null
  readonly catalogue: Catalogue
  readonly log: Log
}

export class RepositoryControl {
  readonly #options: RepositoryControlOptions
  readonly #problems: RepositoryProblems
  readonly #fingerprints = new ModelFingerprints()
  readonly #stability = new Stability()
  /** How each version looked when it was last tried. */
  readonly #tried = new Map<string, string>()
  /** Versions whose last load failed. */
  readonly #failed = new Set<string>()
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #isLooking = false
  #isClosed = false
  #lastFailure = ''

  constructor(options: RepositoryControlOptions) {
    this.#options = options
    this.#problems = new RepositoryProblems(options.log)
  }

  /** Versions and entries of the repository that cannot be served as they stand. */
  get invalidEntries(): number {
    return new Set([...this.#problems.keys, ...this.#failed]).size
  }

  /** Notes what a start found, and how it looked before it was read. */
  async begin({ sources, problems }: RepositoryScan): Promise<void> {
    this.#problems.take(problems, { isPatient: false })
    for (const source of sources) this.#tried.set(versionKey(source), await this.#fingerprints.of(source))
  }

  /** Notes what a start could not load. */
  noteFailed(source: ModelSource): void {
    this.#failed.add(versionKey(source))
  }

  /** From here on what changes in the folder changes what is served. */
  async watch(): Promise<void> {
    const { modelsDir, log } = this.#options
    if (modelsDir === null) return
    let hasFailed = false
    // Looking finds what a watch misses, only later: a link that leads nowhere is no reason to give up the rest.
    const onFailure = (thrown: unknown) => {
      const seconds = LOOK_AGAIN_MS / 1000
      if (!hasFailed)
        log.warn(
          { reason: messageOf(thrown) },
          `changes of the repository can be seen up to ${seconds} s late`,
        )
      hasFailed = true
    }
    const watcher = watch(modelsDir, {
      ...{ ignoreInitial: true, followSymlinks: true, depth: WATCHED_DEPTH },
      // They are a problem of the entry that may not be read, and the scan says so.
      ignorePermissionErrors: true,
    })
    this.#watcher = watcher
    watcher.on('all', () => this.#lookIn(STABLE_MS))
    watcher.on('error', onFailure)
    // What changes before it has seen everything it does not tell.
    const isWatching = new Promise((resolve) => watcher.once('ready', () => resolve(undefined)))
    await withDeadline(isWatching, WATCH_TIMEOUT_MS, `the watch on ${modelsDir}`).catch(onFailure)
    this.#lookIn(0)
  }

  #lookIn(delayMs: number): void {
    if (this.#isClosed) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#look(), delayMs)
  }

  async #look(): Promise<void> {
    if (this.#isLooking) {
      this.#lookIn(STABLE_MS)
      return
    }
    this.#isLooking = true
    let isSettled = true
    try {
      isSettled = await this.#follow()
      this.#lastFailure = ''
    } catch (thrown) {
      // The folder itself is not there, or not now: it is looked at again.
      const failure = messageOf(thrown)
      if (failure !== this.#lastFailure)
        this.#options.log.error({ reason: failure }, 'the repository is left as it was')
      this.#lastFailure = failure
    } finally {
      this.#isLooking = false
    }
    this.#lookIn(isSettled ? LOOK_AGAIN_MS : STABLE_MS)
  }

  async #scan(override: ConfigOverride | null = null): Promise<RepositoryScan> {
    const { modelsDir } = this.#options
    return modelsDir === null ? NOTHING : await scanRepository(modelsDir, override)
  }

  /** Loads what is new or different, unloads what is gone; false where something is still changing. */
  async #follow(): Promise<boolean> {
    const { catalogue } = this.#options
    const scan = await this.#scan()
    this.#problems.take(scan.problems, { isPatient: true })
    let isSettled = !this.#problems.isPending()
    for (const source of scan.sources) {
      const key = versionKey(source)
      const fingerprint = await this.#fingerprints.of(source)
      if (fingerprint === this.#tried.get(key)) continue
      if (!this.#stability.isStable(key, fingerprint)) {
        isSettled = false
        continue
      }
      this.#tried.set(key, fingerprint)
      // Why it failed is in the index, the log and the metrics.
      await this.#load(source).catch(() => {})
    }
    for (const served of catalogue.served) {
      if (this.#isMeant(served, scan)) continue
      if (!this.#stability.isStable(versionKey(served), 'gone')) {
        isSettled = false
        continue
      }
      this.#tried.delete(versionKey(served))
      // Gone meanwhile: nothing is left to be done.
      await catalogue.unload(served).catch(() => {})
    }
    this.#forgetGone(scan)
    return isSettled
  }

  /** Whether a version that is served is to stay. */
  #isMeant(
    { name, version }: { name: string; version: string },
    { sources, problems }: RepositoryScan,
  ): boolean {
    const wanted = sources.filter((source) => source.name === name)
    if (wanted.some((source) => source.version === version)) return true
    const wrong = problems.filter((problem) => problem.name === name)
    // It has turned bad, or the entry has: what is served of it is good.
    if (wrong.some((problem) => problem.version === null || problem.version === version)) return true
    const served = new Set(this.#options.catalogue.served.map(versionKey))
    const isServed = (source: ModelSource) => served.has(versionKey(source))
    // What should take its place does not serve: better the old version than none. One that failed is not waited for.
    if (wanted.length + wrong.length > 0 && !wanted.some(isServed)) return true
    const isDone = (source: ModelSource) => isServed(source) || this.#failed.has(versionKey(source))
    return !wanted.every(isDone) || this.#problems.isPending(name)
  }

  /** What is gone from the repository, and not served, leaves nothing behind. */
  #forgetGone({ sources, problems }: RepositoryScan): void {
    if (this.#options.modelsDir === null) return
    const present = new Set(sources.map(versionKey))
    const known = new Set([...present, ...this.#options.catalogue.served.map(versionKey)])
    this.#fingerprints.keep(sources)
    this.#stability.keep(known)
    for (const key of this.#tried.keys()) if (!known.has(key)) this.#tried.delete(key)
    for (const key of this.#failed) if (!present.has(key)) this.#failed.delete(key)
    const wrong = new Set(problems.map(({ name }) => name))
    this.#options.catalogue.forget((entry) => !present.has(versionKey(entry)) && !wrong.has(entry.name))
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
   * Serves every version of a model as it is in the repository now; one that cannot be served keeps no other from it.
   * `config` is JSON that takes the place of its config.json until the next load.
   * @throws OnecopyError MODEL_NOT_FOUND, REQUEST_INVALID (config), or why a version cannot be served: REPOSITORY_INVALID, or as loading it says.
   */
  async load(name: string, config: string | null): Promise<void> {
    const { catalogue } = this.#options
    const override = config === null ? null : { model: name, config: readOverride(config, name) }
    const scan = await this.#scan(override)
    // What is wrong with an override is no problem of the repository.
    if (override === null) this.#problems.take(scan.problems, { isPatient: false })
    const isOfName = (one: ModelSource | RepositoryProblem) => one.name === name
    const [sources, problems] = [scan.sources.filter(isOfName), scan.problems.filter(isOfName)]
    if (sources.length + problems.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name)} in the repository`)
    const failures: unknown[] = problems.map(problemError)
    for (const source of sources) await this.#load(source).catch((thrown) => failures.push(thrown))
    for (const served of catalogue.served)
      if (served.name === name && !this.#isMeant(served, scan)) await catalogue.unload(served)
    this.#forgetGone(scan)
    if (failures.length > 0) throw allInOne(failures)
  }

  /** @throws OnecopyError MODEL_NOT_FOUND when no version of it is served. */
  async unload(name: string): Promise<void> {
    const { catalogue } = this.#options
    const served = catalogue.served.filter((one) => one.name === name)
    if (served.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `model ${JSON.stringify(name)} is not served`)
    for (const one of served) await catalogue.unload(one)
  }

  /** What is served or was tried, what else stands in the repository, and what is wrong with it. */
  async index(): Promise<IndexEntry[]> {
    const scan = await this.#scan().catch(() => null)
    // A repository that cannot be read says nothing about what is gone.
    if (scan !== null) this.#forgetGone(scan)
    return mergeIndex(this.#options.catalogue.index, scan ?? NOTHING)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#watcher?.close()
  }
}
