/**
 * Keeps the catalogue as the model repository is: by itself where it is watched, on request otherwise.
 *
 * A version that is still being copied is not taken: its files must have looked the same for a while. What
 * fails to load is tried again when it looks different.
 */
import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { type FSWatcher, watch } from 'chokidar'
import type { IndexEntry } from '../src/api/schemas.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import { withDeadline } from '../src/lifecycle.js'
import type { Log } from '../src/log.js'
import { type ModelSource, scanRepository } from '../src/model/repository.js'
import type { Catalogue } from './catalogue.js'

/** Files that looked the same for so long are complete. */
const STABLE_MS = 1000
/** Some file systems (NFS, some volumes) say nothing when they change, and a folder replaced by a rename can slip through a watch. */
const LOOK_AGAIN_MS = 5000
const WATCH_TIMEOUT_MS = 30_000
/** NAME, VERSION, and the files there. */
const WATCHED_DEPTH = 3

export interface RepositoryControlOptions {
  readonly modelsDir: string
  readonly catalogue: Catalogue
  readonly log: Log
}

interface Sighting {
  readonly looks: string
  readonly sinceMs: number
}

function keyOf({ name, version }: { readonly name: string; readonly version: string }): string {
  return `${name}@${version}`
}

/** How a version's files look: those beside the model are its external data. */
async function looksOf({ path, config }: ModelSource): Promise<string> {
  const folder = dirname(path)
  const files = await Promise.all(
    (await readdir(folder)).sort().map(async (name) => {
      const found = await stat(join(folder, name), { bigint: true }).catch(() => null)
      return found?.isFile() === true ? `${name} ${found.size} ${found.mtimeNs} ${found.ino}` : ''
    }),
  )
  return `${files.join('\n')}\n${JSON.stringify(config)}`
}

export class RepositoryControl {
  readonly #options: RepositoryControlOptions
  /** How each version looked when it was last tried. */
  readonly #tried = new Map<string, string>()
  readonly #seen = new Map<string, Sighting>()
  #watcher: FSWatcher | undefined
  #timer: NodeJS.Timeout | undefined
  #isLooking = false
  #isClosed = false
  #lastProblem = ''

  constructor(options: RepositoryControlOptions) {
    this.#options = options
  }

  /** From here on what changes in the folder changes what is served. */
  async watch(sources: readonly ModelSource[]): Promise<void> {
    const { modelsDir, log } = this.#options
    for (const source of sources) this.#tried.set(keyOf(source), await looksOf(source))
    const watcher = watch(modelsDir, { ignoreInitial: true, followSymlinks: true, depth: WATCHED_DEPTH })
    this.#watcher = watcher
    watcher.on('all', () => this.#lookIn(STABLE_MS))
    watcher.on('error', (thrown) =>
      log.warn(
        { reason: messageOf(thrown) },
        `the repository is looked at every ${LOOK_AGAIN_MS / 1000} s only`,
      ),
    )
    // What changes before it has seen everything it does not tell.
    const isWatching = new Promise((resolve) => watcher.once('ready', () => resolve(undefined)))
    await withDeadline(isWatching, WATCH_TIMEOUT_MS, `the watch on ${modelsDir}`)
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
      this.#lastProblem = ''
    } catch (thrown) {
      // A folder that is half there is looked at again when it changes.
      const problem = messageOf(thrown)
      if (problem !== this.#lastProblem)
        this.#options.log.error({ reason: problem }, 'the repository is left as it was')
      this.#lastProblem = problem
    } finally {
      this.#isLooking = false
    }
    this.#lookIn(isSettled ? LOOK_AGAIN_MS : STABLE_MS)
  }

  /** Loads what is new or different, unloads what is gone; false where something is still changing. */
  async #follow(): Promise<boolean> {
    const { modelsDir, catalogue } = this.#options
    const sources = await scanRepository(modelsDir)
    let isSettled = true
    for (const source of sources) {
      const key = keyOf(source)
      const looks = await looksOf(source)
      if (looks === this.#tried.get(key)) continue
      if (!this.#isStable(key, looks)) {
        isSettled = false
        continue
      }
      this.#tried.set(key, looks)
      // Why it failed is in the index, the log and the metrics.
      await catalogue.load(source).catch(() => {})
    }
    for (const { name, version } of catalogue.served) {
      const wanted = sources.filter((source) => source.name === name)
      if (wanted.some((source) => source.version === version)) continue
      // What should take its place does not serve yet: better the old version than none.
      const served = new Set(catalogue.served.map(keyOf))
      if (!wanted.every((source) => served.has(keyOf(source)))) continue
      this.#tried.delete(keyOf({ name, version }))
      await catalogue.unload({ name, version })
    }
    return isSettled
  }

  #isStable(key: string, looks: string): boolean {
    const seen = this.#seen.get(key)
    if (seen?.looks === looks && performance.now() - seen.sinceMs >= STABLE_MS) {
      this.#seen.delete(key)
      return true
    }
    if (seen?.looks !== looks) this.#seen.set(key, { looks, sinceMs: performance.now() })
    return false
  }

  /**
   * Serves every version of a model as it is in the repository now.
   * @throws OnecopyError MODEL_NOT_FOUND, REPOSITORY_INVALID, or why a version cannot be served.
   */
  async load(name: string): Promise<void> {
    const { modelsDir, catalogue } = this.#options
    const sources = (await scanRepository(modelsDir)).filter((source) => source.name === name)
    if (sources.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name)} in the repository`)
    for (const source of sources) await catalogue.load(source)
    const present = new Set(sources.map(({ version }) => version))
    for (const served of catalogue.served)
      if (served.name === name && !present.has(served.version)) await catalogue.unload(served)
  }

  /** @throws OnecopyError MODEL_NOT_FOUND when no version of it is served. */
  async unload(name: string): Promise<void> {
    const { catalogue } = this.#options
    const served = catalogue.served.filter((one) => one.name === name)
    if (served.length === 0)
      throw new OnecopyError('MODEL_NOT_FOUND', `model ${JSON.stringify(name)} is not served`)
    for (const one of served) await catalogue.unload(one)
  }

  /** What is served or was tried, and what else stands in the repository. */
  async index(): Promise<IndexEntry[]> {
    const { modelsDir, catalogue } = this.#options
    const known = catalogue.index
    const keys = new Set(known.map(keyOf))
    const sources = await scanRepository(modelsDir).catch(() => [])
    const others = sources
      .filter((source) => !keys.has(keyOf(source)))
      .map(({ name, version }) => ({ name, version, state: 'UNAVAILABLE' as const, reason: 'not loaded' }))
    return [...known, ...others].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1))
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    await this.#watcher?.close()
  }
}
