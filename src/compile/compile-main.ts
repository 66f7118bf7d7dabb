/**
 * The compile process. It reads requests from standard input, one a line, finds the compiled image in the cache
 * or makes it in the work folder, and answers each with one line on standard output. Compilation takes several times
 * the model's size in memory and runs code on files of unknown origin: a process that ends gives the
 * memory back, and its crash is an error message.
 */
import { existsSync } from 'node:fs'
import { open, readFile, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import {
  batchingResult,
  notProven,
  probeBatching,
  shapesAgainstBatching,
} from '../batchability/batchability.js'
import { indexLimitsOf } from '../batchability/index-limits.js'
import { proveRowsApart } from '../batchability/proof/prove.js'
import { messageOf, OnecopyError } from '../errors.js'
import { dropDuplicateInitializers, externalFiles, parseModel, serializeModel } from '../onnx/graph.js'
import type { GraphProto, ModelProto } from '../onnx/onnx_pb.js'
import { findRandomNode } from '../onnx/randomness.js'
import { cgroupMemoryLimit } from '../process/memory.js'
import { checkDeclared, dimensionNames, type ModelInterface, readInterface } from '../repository/interface.js'
import { compileModel, Session } from '../runtime/session.js'
import { type Batching, SEGMENT_FILE_NAME } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'
import { requiredOf, type Tensor } from '../tensor.js'
import { formatBytes } from '../units.js'
import { castBfloat16Borders } from './bfloat16.js'
import { findCompiled } from './cache.js'
import { cacheKey } from './cache-key.js'
import {
  type CompileNotice,
  type CompileReply,
  type CompileRequest,
  CompileRequestSchema,
} from './compile-messages.js'
import { type Defaults, separateDefaults, takeDefaults } from './defaults.js'
import { digestModel } from './digest.js'
import { updateHeader, writeImage } from './image.js'
import { areSettled, type FileFacts, factsOf, type KnownFiles } from './known-files.js'
import { recordSelfCheck } from './self-check.js'
import { declareOutputs } from './undeclared.js'

/** A protobuf message, and so the part of a model inside its file, ends below 2 GiB. */
const MAX_MODEL_FILE_BYTES = 2 ** 31 - 1

type Model = ModelProto & { graph: GraphProto }

async function readModel(path: string): Promise<Buffer<ArrayBuffer>> {
  const { size } = await stat(path)
  if (size > MAX_MODEL_FILE_BYTES) {
    throw new OnecopyError(
      'MODEL_INVALID',
      `expected an ONNX file below 2 GiB (larger weights belong in external data), got ${size} bytes`,
    )
  }
  return await readFile(path)
}

/** The least that compiling took of any kind of model that was measured, in sizes of its file. */
const COMPILE_FACTOR = 2

/** Says no before the kernel does. */
function requireMemory(modelBytes: number): void {
  const limitBytes = cgroupMemoryLimit()
  if (limitBytes === null || modelBytes * COMPILE_FACTOR <= limitBytes) return
  throw new OnecopyError(
    'MEMORY_LIMIT',
    `compiling a model of ${formatBytes(modelBytes)} takes ${formatBytes(modelBytes * COMPILE_FACTOR)} and more, ` +
      `the control group allows ${formatBytes(limitBytes)}: raise its memory limit, or compile elsewhere into a cache that is mounted here`,
  )
}

function asModelError(thrown: unknown): OnecopyError {
  if (thrown instanceof OnecopyError) return thrown
  const text = messageOf(thrown)
  const isNoModel = /protobuf parsing failed|ModelProto does not have a graph/i.test(text)
  return new OnecopyError(
    isNoModel ? 'MODEL_INVALID' : 'MODEL_UNSUPPORTED',
    `the runtime refuses the model: ${text}`,
  )
}

/** What an image says whose graph is proven, before trial runs and without them. */
const NOT_TRIED = batchingResult(false, 'the probe did not finish')

interface Compilation {
  readonly key: string
  readonly workFolder: string
  readonly folder: string
  readonly original: Model
  readonly modelPath: string
  readonly modelInterface: ModelInterface
  readonly defaults: Defaults
  /** Whether `original` is not what stands in the file. */
  readonly isRewritten: boolean
  /** What speaks against batching in the declared shapes; null for nothing. */
  readonly against: string | null
  /** Whether the model is run at all while it is compiled. */
  readonly hasTrials: boolean
}

function say(line: CompileReply | CompileNotice): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

/** What declared shapes and the graph that is loaded say of batching; null where they leave it to trial runs. */
function batchingOf(model: Model, { against, modelInterface }: Compilation): Batching | null {
  if (against !== null) return batchingResult(false, against)
  const random = findRandomNode(model)
  if (random !== null) {
    const remedy = 'export the model for inference, or draw the random numbers outside of it'
    return notProven({ ...random, node: random.name, remedy })
  }
  const namesOf = (specs: readonly { readonly name: string }[]) => specs.map(({ name }) => name)
  // Requests that send an optional input are computed alone: in a batch it has its default.
  const inputs = namesOf(requiredOf(modelInterface.inputs))
  const proof = proveRowsApart({ model, inputs, outputs: namesOf(modelInterface.outputs) })
  return proof.isProven ? null : notProven(proof)
}

/**
 * Loads an image the way a worker does; throws what the runtime says where it would not load. A graph that is proven to
 * keep rows apart is tried for batching, and the header says the result.
 */
async function proveLoadable(
  path: string,
  {
    hasTrials,
    isProven,
    graph: loaded,
  }: { readonly hasTrials: boolean; readonly isProven: boolean; readonly graph: GraphProto },
): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const header = await readHeader(file)
    const graph = Buffer.alloc(header.graph.bytes)
    await file.read(graph, 0, graph.length, header.graph.offsetBytes)
    const { form, inputs, outputs, random } = header
    const folder = form === 'compiled' ? dirname(path) : header.externalDataFolder
    const session = Session.load({
      ...separateDefaults(graph, inputs),
      ...{ folder, form, inputs, outputs, threads: 1 },
    })
    const asked = new Set(session.inputNames)
    // Optional inputs keep their default in trials: requests that send them are computed alone.
    const required = requiredOf(inputs)
    const askedInputs = required.filter(({ name }) => asked.has(name))
    const run = async (tensors: readonly Tensor[], names: readonly string[]) => [
      ...session.run(tensors, names).outputs,
    ]
    // A crash from here on is that of trial runs: the model can be served without them.
    say({ notice: 'probing' })
    const change: Parameters<typeof updateHeader>[1] = {}
    // What answers the same twice by chance would fail its check in some later load.
    if (hasTrials && random === null)
      change.selfCheck = await recordSelfCheck({ inputs: required, outputs, run })
    if (hasTrials && isProven) {
      const indexLimits = indexLimitsOf(loaded)
      change.batching = await probeBatching({ inputs: askedInputs, outputs, run, indexLimits })
    }
    session.close()
    if (hasTrials) await updateHeader(file, change)
  } finally {
    await file.close()
  }
}

/** Optimised graph, weights and packed kernels in one file, proven to load. */
async function compileShared(compilation: Compilation): Promise<string> {
  const { workFolder, folder, modelPath, original, defaults, isRewritten } = compilation
  const graphPath = join(workFolder, 'graph.onnx')
  const dataFileName = 'weights.bin'
  const path = join(workFolder, SEGMENT_FILE_NAME)
  const hasCasts = castBfloat16Borders(original, compilation.modelInterface)
  await compileModel({
    model: hasCasts || isRewritten ? { bytes: serializeModel(original), folder } : modelPath,
    graphPath,
    dataFileName,
  }).catch((thrown) => {
    throw asModelError(thrown)
  })
  const model = parseModel(await readFile(graphPath))
  dropDuplicateInitializers(model.graph)
  model.graph.initializer.push(...defaults.tensors)
  const dataPath = join(workFolder, dataFileName)
  const found = batchingOf(model, compilation)
  await writeImage({
    path,
    key: compilation.key,
    form: 'compiled',
    model,
    modelInterface: compilation.modelInterface,
    notes: compilation.defaults.notes,
    batching: found ?? NOT_TRIED,
    dataPath: existsSync(dataPath) ? dataPath : null,
    externalDataFolder: null,
  })
  const { hasTrials } = compilation
  await proveLoadable(path, { hasTrials, isProven: found === null, graph: model.graph })
  return path
}

/** The model as it came, for what the runtime cannot write back: served, not shared. */
async function keepOriginal(compilation: Compilation): Promise<string> {
  const path = join(compilation.workFolder, SEGMENT_FILE_NAME)
  await rm(path, { force: true })
  compilation.original.graph.initializer.push(...compilation.defaults.tensors)
  const found = batchingOf(compilation.original, compilation)
  await writeImage({
    path,
    key: compilation.key,
    form: 'original',
    model: compilation.original,
    modelInterface: compilation.modelInterface,
    notes: compilation.defaults.notes,
    batching: found ?? NOT_TRIED,
    dataPath: null,
    externalDataFolder: externalFiles(compilation.original).length > 0 ? compilation.folder : null,
  })
  const { hasTrials, original } = compilation
  await proveLoadable(path, { hasTrials, isProven: found === null, graph: original.graph })
  return path
}

/** What the model is, and what it can be recognised by where its files stood still while they were read. */
async function digestKnown(options: {
  /** As of before `bytes` were read. */
  readonly modelFacts: FileFacts
  readonly bytes: Uint8Array
  readonly folder: string
  readonly external: readonly string[]
}): Promise<{ readonly digest: string; readonly known: KnownFiles | null }> {
  const { modelFacts, bytes, folder, external } = options
  // What is not there is said better by what reads it.
  const externalFacts = await factsOf(folder, external).catch(() => [])
  const digest = await digestModel({ bytes, folder, externalFiles: external })
  const files = await factsOf(folder, [modelFacts.name, ...external])
  return { digest, known: areSettled([modelFacts, ...externalFacts], files) ? { files, digest } : null }
}

async function compile(request: CompileRequest): Promise<CompileReply> {
  const { modelPath, workFolder } = request
  const folder = dirname(modelPath)
  const [modelFacts] = (await factsOf(folder, [basename(modelPath)])) as [FileFacts]
  const bytes = await readModel(modelPath)
  const original = parseModel(bytes)
  // Refused before the runtime sees the model: on some of these types it aborts the process.
  checkDeclared(original.graph)
  const { digest, known } = await digestKnown({
    modelFacts,
    bytes,
    folder,
    external: externalFiles(original),
  })
  const key = cacheKey(digest)
  const read = () => ({ key, known, residentBytes: process.memoryUsage.rss() })
  const { heldKeys, isCacheTrusted, cacheFolders } = request
  const found = await findCompiled(key, { heldKeys, folders: isCacheTrusted ? cacheFolders : [] })
  if (found !== null) return { ...read(), ...found }
  requireMemory(bytes.byteLength)

  const defaults = await takeDefaults(original, folder)
  const hasDeclared = await declareOutputs(original, folder).catch((thrown) => {
    throw asModelError(thrown)
  })
  const modelInterface = readInterface(original.graph, defaults.optional)
  const against = shapesAgainstBatching({
    inputs: requiredOf(modelInterface.inputs),
    outputs: modelInterface.outputs,
    dimensionNames: dimensionNames(original.graph.input),
  })
  const compilation: Compilation = {
    ...{ key, workFolder, folder, original, modelPath, modelInterface, defaults },
    isRewritten: defaults.hasChanges || hasDeclared,
    ...{ against, hasTrials: request.probe },
  }
  let imagePath: string
  try {
    imagePath = await compileShared(compilation)
  } catch (sharedFailure) {
    // What the runtime refuses outright it refuses in either form; its first words are the clearer ones.
    imagePath = await keepOriginal(compilation).catch(() => {
      throw asModelError(sharedFailure)
    })
  }
  return { ...read(), outcome: 'compiled', imagePath, cached: false }
}

async function answer(line: string): Promise<CompileReply> {
  try {
    return await compile(CompileRequestSchema.parse(JSON.parse(line)))
  } catch (thrown) {
    const error = thrown instanceof OnecopyError ? thrown : null
    return { outcome: 'failed', code: error?.code ?? 'COMPILE_FAILED', message: messageOf(thrown) }
  }
}

// The server's end of the pipe closes when the server dies: nobody waits for this work then.
const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit(1))
for await (const line of lines) say(await answer(line))
