/**
 * `onecopy load`: keeps a model in memory until a signal. By default one worker serves on a Unix socket next
 * to the segment, where `onecopy run` finds it. With --http the whole server runs. With --segment-only there
 * is only the segment, for processes that attach to it.
 */
import { resolve } from 'node:path'
import type { PublishedModel } from '../../src/compile/publish.js'
import type { Config } from '../../src/config/config.js'
import { configOf, readServeFlags } from '../../src/config/load.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { writeResidentNote } from '../../src/ersilia/resident.js'
import { type Attachable, OwnerServer } from '../../src/library/owner-server.js'
import { createLog } from '../../src/log.js'
import { cgroupMemoryLimit } from '../../src/process/memory.js'
import { createServerFolder, removeFolder } from '../../src/segment/folder.js'
import { MemoryBudget } from '../../src/sharing/memory-budget.js'
import { EXIT } from '../exit-codes.js'
import { realName, unknownModel } from '../models/attachable.js'
import { type InitialModels, residentNote, resolveInitialModels } from '../models/bundles.js'
import { Publisher } from '../models/publisher.js'
import { runPrimary } from '../run-primary.js'
import { onTermination } from '../signals.js'
import { usageError } from './arguments.js'
import { COMMANDS, type CommandDefinition } from './definitions.js'

interface LoadOptions {
  readonly path: string
  readonly name: string | null
  readonly isHttp: boolean
  readonly isSegmentOnly: boolean
  /** Flags of `serve`. */
  readonly serveFlags: Readonly<Record<string, string>>
}

function readOptions(argv: readonly string[]): LoadOptions {
  const { flags }: CommandDefinition = COMMANDS.load
  const own = Object.entries(flags).map(([name, { value }]) => [name, { isSwitch: value === undefined }])
  const { values, positionals } = readServeFlags(argv, 'load', Object.fromEntries(own))
  const { name = null, http, 'segment-only': segmentOnly, ...serveFlags } = values
  const [path, ...others] = positionals
  if (path === undefined || others.length > 0)
    throw usageError(`expected one model or bundle, got ${positionals.length}`, 'load')
  if (name === '') throw usageError('--name: expected a name', 'load')
  const isHttp = http === 'on'
  const isSegmentOnly = segmentOnly === 'on'
  if (isHttp && isSegmentOnly) throw usageError('expected --http or --segment-only, got both', 'load')
  return { path: resolve(path), name, isHttp, isSegmentOnly, serveFlags }
}

/** Describes the model to processes that attach. Its raw weights are never released. */
function attachableOf(
  published: readonly PublishedModel[],
  { requested, version, initial, config }: AttachRequest,
): Attachable {
  const name = realName(requested, { names: initial.names, modelName: initial.sources[0]?.name ?? null })
  const found = published.find(
    ({ source }) => source.name === name && (version === null || source.version === version),
  )
  if (found === undefined) throw unknownModel(requested, version)
  const { source, reference } = found
  return {
    ...{ generation: `${source.name}@${source.version}#1`, name: source.name, version: source.version },
    ...{ config: source.config, threads: config.threads, reference: () => reference },
    lease: async () => () => {},
  }
}

interface AttachRequest {
  readonly requested: string
  readonly version: string | null
  readonly initial: InitialModels
  readonly config: Config
}

/** Publishes the model, prints its location, and waits for a signal. */
async function holdSegment(config: Config): Promise<number> {
  const log = createLog({ level: config.logLevel, role: 'primary', format: config.logFormat })
  const stop = new AbortController()
  const stopped = new Promise<void>((settle) => {
    const end = () => {
      stop.abort()
      settle()
    }
    onTermination({ onFirst: end, onSecond: end })
  })
  let folder: string | undefined
  let owner: OwnerServer | null = null
  try {
    const initial = await resolveInitialModels(config, log)
    if (initial.sources.length === 0)
      throw new OnecopyError(
        'BUNDLE_INVALID',
        'the bundle has no serve.json: it has no model to keep in memory',
      )
    const budget = new MemoryBudget({ limitBytes: cgroupMemoryLimit(), workers: 0 })
    const publisher = new Publisher({
      // No process here could restore released weights before another one loads them.
      config: { ...config, rawWeights: 'keep' },
      ...{ log, budget, signal: stop.signal },
      reservedBytes: () => 0,
    })
    const leftovers = await publisher.findLeftovers(initial.sources)
    const server = await createServerFolder(config.segmentDir)
    folder = server.path
    const published = await publisher.publishAll(initial.sources, server, { leftovers })
    owner = await OwnerServer.start({
      ...{ serverFolder: folder, log },
      find: (requested, version) => attachableOf(published, { requested, version, initial, config }),
    })
    const note = residentNote(initial, null)
    await writeResidentNote(folder, note)
    process.stdout.write(`ready: ${initial.names.join(', ')} in ${folder}\n`)
    log.info({ names: initial.names, folder }, 'ready')
    // A pending promise alone does not keep the process alive.
    const alive = setInterval(() => {}, 2 ** 30)
    await stopped
    clearInterval(alive)
    return 0
  } catch (thrown) {
    if (stop.signal.aborted) return 0
    log.fatal({ code: thrown instanceof OnecopyError ? thrown.code : undefined }, messageOf(thrown))
    return EXIT.failed
  } finally {
    await owner?.close()
    if (folder !== undefined) await removeFolder(folder)
  }
}

/** Runs `onecopy load` until a signal; resolves with the exit code. */
export async function runLoad(argv: readonly string[], version: string): Promise<number> {
  const { path, name, isHttp, isSegmentOnly, serveFlags } = readOptions(argv)
  const byDefault = {
    ...(process.env.ONECOPY_WORKERS === undefined ? { workers: '1' } : {}),
    // Other processes can load the segment at any time, so its raw weights stay.
    ...(process.env.ONECOPY_RAW_WEIGHTS === undefined ? { 'raw-weights': 'keep' } : {}),
  }
  const config: Config = { ...configOf({ ...byDefault, ...serveFlags }), only: { path, name }, isHttp }
  return isSegmentOnly ? await holdSegment(config) : await runPrimary(config, version)
}
