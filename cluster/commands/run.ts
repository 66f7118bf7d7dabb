/**
 * `onecopy run`: predicts a file of molecules in a short-lived process. If a server of the same
 * user holds the model, the process sends requests to its Unix socket or attaches to its segment,
 * and does not load the model. Modules are imported lazily, because run.sh starts this command for
 * every request.
 */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { realpath } from 'node:fs/promises'
import { type ErrorCode, messageOf, OnecopyError } from '../../src/errors.js'
import type { Bundle } from '../../src/ersilia/bundle.js'
import type { OutputType, Row } from '../../src/ersilia/orient.js'
import type { PredictOptions, Predictor } from '../../src/ersilia/predictor.js'
import type { Resident } from '../../src/ersilia/resident.js'
import type { SegmentListing } from '../../src/segment/listing.js'
import { EXIT } from '../exit-codes.js'
import { commandLine, segmentDirOf, usageError } from './arguments.js'

const METHODS = ['socket', 'segment', 'cold'] as const
type Method = (typeof METHODS)[number]

/** A segment that cannot be attached to; its owner may have just ended. */
const UNUSABLE: readonly ErrorCode[] = ['SEGMENT_INVALID', 'SEGMENT_SPACE', 'MODEL_NOT_RESIDENT', 'TIMEOUT']

/** Fewer rows finish before a progress bar would be visible. */
const PROGRESS_FROM = 1000

interface Options {
  readonly target: string
  readonly input: string
  readonly output: string
  readonly via: Method | null
  readonly segmentDir: string
  readonly isQuiet: boolean
}

function readOptions(argv: readonly string[]): Options {
  const { values, positionals } = commandLine('run', argv)
  const [target] = positionals
  if (target === undefined || positionals.length > 1)
    throw usageError(`expected one name or bundle, got ${positionals.length}`, 'run')
  const { input, output, via } = values
  if (input === undefined || output === undefined) throw usageError('expected --input and --output', 'run')
  const method = METHODS.find((one) => one === via)
  if (via !== undefined && method === undefined)
    throw usageError(`--via: expected ${METHODS.join(', ')}, got ${via}`, 'run')
  return {
    target,
    input,
    output,
    via: method ?? null,
    segmentDir: segmentDirOf(values['segment-dir'], 'run'),
    isQuiet: values.quiet === 'on',
  }
}

interface Predicted {
  readonly columns: readonly string[]
  readonly rows: readonly Row[]
  readonly outputType: OutputType
}

/** The input file. The model determines which columns of a line it takes. */
interface Input {
  readonly lines: readonly (readonly string[])[]
  /** The first column. @throws FileError. */
  readonly molecules: () => readonly string[]
}

/** The folder of the bundle, or null if the target is only a name. */
async function bundleRootOf(target: string): Promise<string | null> {
  const { findBundle } = await import('../../src/ersilia/find-bundle.js')
  try {
    return await realpath(await findBundle(target))
  } catch (thrown) {
    // A target with a slash is a path.
    if (target.includes('/')) throw thrown
    return null
  }
}

async function residentOf(target: string, root: string | null, segmentDir: string): Promise<Resident | null> {
  const { findResidents } = await import('../../src/ersilia/resident.js')
  for (const resident of await findResidents(segmentDir)) {
    if (root === null && resident.names.includes(target)) return resident
    const held = resident.bundlePath
    if (root !== null && held !== null && (await realpath(held).catch(() => held)) === root) return resident
  }
  return null
}

interface Task {
  readonly options: Options
  readonly input: Input
  readonly root: string | null
  readonly resident: Resident | null
  readonly progress: PredictOptions
  readonly warn: (message: string) => void
}

function isUnreachable(thrown: unknown): boolean {
  const code = (thrown as NodeJS.ErrnoException | null)?.code
  return code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'EACCES'
}

/** Predicts and converts the values to the output type of the bundle, as POST /run does. */
async function predictWith(
  predictor: Predictor,
  { columns, outputType }: Bundle,
  { inputs, progress }: { inputs: readonly unknown[]; progress: PredictOptions },
): Promise<Predicted> {
  const { convertCell } = await import('../../src/ersilia/orient.js')
  const rows = await predictor.predict(inputs, progress)
  return { columns, outputType, rows: rows.map((row) => row.map((cell) => convertCell(cell, outputType))) }
}

async function predictAttached(
  { segment, bundlePath, folder }: Resident & { readonly segment: SegmentListing },
  { input, progress, segmentDir }: Pick<Task, 'input' | 'progress'> & { readonly segmentDir: string },
): Promise<Predicted> {
  const [{ attach }, { LocalPredictor }] = await Promise.all([
    import('../../src/library/attach.js'),
    import('../../src/ersilia/local-predictor.js'),
  ])
  const { plainBundle } = await import('../../src/ersilia/plain-bundle.js')
  const { readBundle } = await import('../../src/ersilia/bundle.js')
  const isPlain = bundlePath === null
  const bundle = isPlain ? plainBundle(segment) : await readBundle(bundlePath)
  const { model: name, version } = segment
  const model = await attach(name, { version, segmentDir, serverFolder: folder, threads: 1 })
  await using predictor = await LocalPredictor.attached(bundle, model)
  const inputs = isPlain ? input.lines : input.molecules()
  return await predictWith(predictor, bundle, { inputs, progress })
}

/** Each method resolves with the prediction, or with null if it is not available. */
const ATTEMPTS: Record<Method, (task: Task) => Promise<Predicted | null>> = {
  async socket({ resident, input, progress, warn }) {
    if (resident?.socketPath == null || resident.bundlePath === null) return null
    const { predictOverSocket } = await import('../../src/ersilia/client.js')
    const { socketPath, outputType } = resident
    try {
      return { outputType, ...(await predictOverSocket(socketPath, input.molecules(), progress)) }
    } catch (thrown) {
      if (!isUnreachable(thrown)) throw thrown
      warn(`the server with pid ${resident.pid} cannot be reached: ${messageOf(thrown)}`)
      return null
    }
  },
  async segment({ resident, input, progress, options, warn }) {
    if (resident?.segment == null) return null
    try {
      const { segmentDir } = options
      return await predictAttached(
        { ...resident, segment: resident.segment },
        { input, progress, segmentDir },
      )
    } catch (thrown) {
      // With --via segment this is a failure; otherwise the cold method remains.
      const isRefused = thrown instanceof OnecopyError && UNUSABLE.includes(thrown.code)
      if (!isRefused || options.via !== null) throw thrown
      warn(`the segment of the server with pid ${resident.pid} cannot be used: ${thrown.message}`)
      return null
    }
  },
  async cold({ root, input, progress, warn, options }) {
    if (root === null) return null
    const { readBundle } = await import('../../src/ersilia/bundle.js')
    const bundle = await readBundle(root)
    if (options.via === null)
      warn(
        `no server holds ${bundle.card.Identifier}: its model is loaded only for this run (onecopy load ${root} keeps it)`,
      )
    const work = { inputs: input.molecules(), progress }
    if (bundle.manifest === null) return await predictWith(await scriptPredictor(bundle), bundle, work)
    const { LocalPredictor } = await import('../../src/ersilia/local-predictor.js')
    await using predictor = await LocalPredictor.cold(bundle)
    return await predictWith(predictor, bundle, work)
  },
}

async function scriptPredictor(bundle: Bundle): Promise<Predictor> {
  const { INSIDE_RUN_SCRIPT, SpawnedPredictor } = await import('../../src/ersilia/script-predictor.js')
  if (process.env[INSIDE_RUN_SCRIPT] === undefined) return new SpawnedPredictor(bundle, 0)
  throw new OnecopyError(
    'BUNDLE_INVALID',
    `run.sh of ${bundle.root} calls onecopy, but the bundle has no serve.json`,
  )
}

async function predict(task: Task): Promise<Predicted> {
  const { options, root } = task
  for (const method of options.via === null ? METHODS : [options.via]) {
    const predicted = await ATTEMPTS[method](task)
    if (predicted !== null) return predicted
  }
  const what = root ?? JSON.stringify(options.target)
  const how = options.via === null ? '' : ` for --via ${options.via}`
  throw new OnecopyError(
    'MODEL_NOT_RESIDENT',
    `no server of this user holds ${what}${how}: load it with onecopy load, or give the folder of the bundle`,
  )
}

/** The input cannot be read, or the output cannot be written. */
class FileError extends Error {}

async function readInput(path: string): Promise<Input> {
  try {
    const bytes = readFileSync(path === '-' ? 0 : path)
    if (path.endsWith('.bin')) {
      const molecules = (await import('../../src/ersilia/binary.js')).decodeInputs(bytes)
      return { lines: molecules.map((molecule) => [molecule]), molecules: () => molecules }
    }
    const { firstColumn, parseCsv } = await import('../../src/ersilia/csv.js')
    const table = parseCsv(bytes)
    return {
      lines: table.lines,
      molecules: () => {
        try {
          return firstColumn(table)
        } catch (thrown) {
          throw new FileError(`--input ${path}: ${messageOf(thrown)}`)
        }
      },
    }
  } catch (thrown) {
    throw new FileError(`--input ${path}: ${messageOf(thrown)}`)
  }
}

/** Writes the file atomically, so that readers never see a part of it. */
async function writeOutput(path: string, { columns, rows, outputType }: Predicted): Promise<void> {
  let bytes: string | Buffer
  if (path.endsWith('.bin')) {
    if (outputType === 'string')
      throw new FileError(`--output ${path}: the binary form does not support text outputs`)
    bytes = (await import('../../src/ersilia/binary.js')).encodeOutputs({ columns, rows }, outputType)
  } else bytes = (await import('../../src/ersilia/csv.js')).formatCsv(columns, rows)
  if (path === '-') {
    process.stdout.write(bytes)
    return
  }
  const temporary = `${path}.${process.pid}.tmp`
  try {
    writeFileSync(temporary, bytes)
    renameSync(temporary, path)
  } catch (thrown) {
    rmSync(temporary, { force: true })
    throw new FileError(`--output ${path}: ${messageOf(thrown)}`)
  }
}

async function createProgress(total: number, isQuiet: boolean): Promise<PredictOptions & { end(): void }> {
  if (isQuiet || total < PROGRESS_FROM || !process.stderr.isTTY) return { end() {} }
  const { SingleBar } = await import('cli-progress')
  const bar = new SingleBar({
    format: 'predicting {bar} {value}/{total}, {eta_formatted} left',
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  })
  bar.start(total, 0)
  return { onProgress: (done) => bar.update(done), end: () => bar.stop() }
}

function exitCodeOf(thrown: unknown): number | null {
  if (thrown instanceof FileError) return EXIT.file
  // The server ended during the request.
  if ((thrown as NodeJS.ErrnoException).code === 'ECONNRESET') return EXIT.busy
  if (!(thrown instanceof OnecopyError) || thrown.code === 'CONFIG_INVALID') return null
  if (thrown.code === 'MODEL_NOT_RESIDENT') return EXIT.notResident
  return thrown.status === 503 ? EXIT.busy : EXIT.failed
}

/** Runs `onecopy run`; resolves with the exit code. */
export async function runRun(argv: readonly string[]): Promise<number> {
  const options = readOptions(argv)
  const warn = (message: string) => {
    if (!options.isQuiet) process.stderr.write(`onecopy: warning: ${message}\n`)
  }
  try {
    const input = await readInput(options.input)
    const count = input.lines.length
    const root = await bundleRootOf(options.target)
    const resident = await residentOf(options.target, root, options.segmentDir)
    const progress = await createProgress(count, options.isQuiet)
    let predicted: Predicted
    try {
      predicted = await predict({ options, input, root, resident, progress, warn })
    } finally {
      progress.end()
    }
    if (predicted.rows.length !== count)
      throw new OnecopyError(
        'MODEL_RUN_FAILED',
        `expected ${count} rows, got ${predicted.rows.length} from the model`,
      )
    const empty = predicted.rows.filter((row) => row.every((cell) => cell === null)).length
    if (empty > 0) warn(`${empty} of ${count} rows have no result`)
    await writeOutput(options.output, predicted)
    return 0
  } catch (thrown) {
    const exitCode = exitCodeOf(thrown)
    if (exitCode === null) throw thrown
    const code = thrown instanceof OnecopyError ? `${thrown.code}: ` : ''
    process.stderr.write(`onecopy: ${code}${messageOf(thrown)}\n`)
    return exitCode
  }
}
