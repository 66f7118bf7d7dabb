/**
 * `onecopy load`: keeps a model in memory until it is told to end. By default a worker answers on a Unix socket beside the
 * segment, which is what `onecopy run` looks for; with --http the whole server runs, and with --segment-only nothing
 * but the segment is there, for processes that attach to it.
 */
import { resolve } from 'node:path'
import type { Config } from '../../src/config/config.js'
import { loadConfig } from '../../src/config/load.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { writeResidentNote } from '../../src/ersilia/resident.js'
import { createLog } from '../../src/log.js'
import { cgroupMemoryLimit } from '../../src/process/memory.js'
import { createServerFolder, removeFolder } from '../../src/segment/folder.js'
import { MemoryBudget } from '../../src/sharing/memory-budget.js'
import { beginWith, residentNote } from '../models/bundles.js'
import { Publisher } from '../models/publisher.js'
import { runPrimary } from '../primary.js'
import { onTermination } from '../signals.js'
import { usageError } from './arguments.js'

export const LOAD_HELP = `Usage: onecopy load MODEL|BUNDLE [options]

Keeps a model in memory until it gets a signal, so that onecopy run need not load it. MODEL is an ONNX file, BUNDLE the folder
of an Ersilia bundle. One line that begins with "ready" on standard output says that it is there.

Options:
  --name NAME        How onecopy run calls it [a bundle's Identifier; a file's name]
  --http             Serve on --port and --admin-port too, as onecopy serve does
  --segment-only     No worker: onecopy run attaches to the segment by itself
  --workers N        Worker processes [1]
  --socket PATH      Unix socket to serve on [one beside the segment]

And every other option of onecopy serve (onecopy serve --help).`

interface LoadOptions {
  readonly path: string
  readonly name: string | null
  readonly isHttp: boolean
  readonly isSegmentOnly: boolean
  /** For `serve`. */
  readonly rest: readonly string[]
}

function readOptions(argv: readonly string[]): LoadOptions {
  const [path, ...given] = argv
  if (path === undefined || path.startsWith('-'))
    throw usageError('expected a model or a bundle right after load', 'load')
  let name: string | null = null
  let isHttp = false
  let isSegmentOnly = false
  const rest: string[] = []
  for (let i = 0; i < given.length; i++) {
    const word = given[i] as string
    if (word === '--http') isHttp = true
    else if (word === '--segment-only') isSegmentOnly = true
    else if (word.startsWith('--name=')) name = word.slice('--name='.length)
    else if (word === '--name') name = given[++i] ?? ''
    else rest.push(word)
  }
  if (name === '') throw usageError('--name: expected a name', 'load')
  if (isHttp && isSegmentOnly) throw usageError('expected --http or --segment-only, got both', 'load')
  return { path: resolve(path), name, isHttp, isSegmentOnly, rest }
}

/** Publishes the model, tells where it is, and waits. */
async function holdSegment(config: Config): Promise<number> {
  const log = createLog({ level: config.logLevel, role: 'primary' })
  const stop = new AbortController()
  const stopped = new Promise<void>((settle) => {
    const end = () => {
      stop.abort()
      settle()
    }
    onTermination({ onFirst: end, onSecond: end })
  })
  let folder: string | undefined
  try {
    const beginning = await beginWith(config, log)
    if (beginning.sources.length === 0)
      throw new OnecopyError(
        'BUNDLE_INVALID',
        'the bundle has no serve.json: there is nothing to keep in memory',
      )
    const budget = new MemoryBudget({ limitBytes: cgroupMemoryLimit(), workers: 0 })
    const publisher = new Publisher({
      // Nobody here restores what was released before others load it.
      config: { ...config, rawWeights: 'keep' },
      ...{ log, budget, signal: stop.signal },
      reservedBytes: () => 0,
    })
    const leftovers = await publisher.findLeftovers(beginning.sources)
    const server = await createServerFolder(config.segmentDir)
    folder = server.path
    await publisher.publishAll(beginning.sources, server, { leftovers })
    const note = residentNote(beginning, null)
    if (note !== null) await writeResidentNote(folder, note)
    process.stdout.write(`ready: ${beginning.names.join(', ')} in ${folder}\n`)
    log.info({ names: beginning.names, folder }, 'ready')
    // A promise keeps no process alive.
    const alive = setInterval(() => {}, 2 ** 30)
    await stopped
    clearInterval(alive)
    return 0
  } catch (thrown) {
    if (stop.signal.aborted) return 0
    log.fatal({ code: thrown instanceof OnecopyError ? thrown.code : undefined }, messageOf(thrown))
    return 1
  } finally {
    if (folder !== undefined) await removeFolder(folder)
  }
}

/** Runs `onecopy load` until a signal; resolves with the exit code. */
export async function runLoad(argv: readonly string[], version: string): Promise<number> {
  const { path, name, isHttp, isSegmentOnly, rest } = readOptions(argv)
  const byDefault = [
    ...(process.env.ONECOPY_WORKERS === undefined ? ['--workers', '1'] : []),
    // Other processes load the segment at any time: what that takes stays there.
    ...(process.env.ONECOPY_RAW_WEIGHTS === undefined ? ['--raw-weights', 'keep'] : []),
  ]
  const config: Config = { ...loadConfig([...byDefault, ...rest]), only: { path, name }, isHttp }
  return isSegmentOnly ? await holdSegment(config) : await runPrimary(config, version)
}
