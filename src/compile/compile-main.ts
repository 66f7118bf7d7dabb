/**
 * The compile process. It reads one request per line from standard input, finds the compiled image in the
 * cache or creates it in the work folder, and writes one reply per line to standard output. Compilation takes
 * several times the model's size in memory and processes untrusted files. A separate process returns the
 * memory when it ends, and a crash becomes an error message.
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
import { COMPILE_FACTORS } from './compile-memory.js'
import {
  type CompileNotice,
  type CompileReply,
  type CompileRequest,
  CompileRequestSchema,
} from './compile-messages.js'
import { type Defaults, separateDefaults, takeDefaults } from './defaults.js'
import { digestModel } from './digest.js'
import { writeImage } from './image.js'
import { updateHeader } from './image-header.js'
import { areSettled, type FileFacts, factsOf, type KnownFiles } from './known-files.js'
import { recordSelfCheck } from './self-check.js'
import { declareOutputs } from './undeclared.js'

/** A protobuf message, and so the model without its external data, is limited to 2 GiB. */
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

/** Fails before the OOM killer would act. */
function requireMemory(modelBytes: number): void {
  const limitBytes = cgroupMemoryLimit()
  const leastBytes = modelBytes * COMPILE_FACTORS.least
  if (limitBytes === null || leastBytes <= limitBytes) return
  throw new OnecopyError(
    'MEMORY_LIMIT',
    `compiling a model of ${formatBytes(modelBytes)} takes ${formatBytes(leastBytes)} or more, ` +
      `but the control group allows only ${formatBytes(limitBytes)}: raise its memory limit, or mount a cache that was filled on another machine`,
  )
}

function asModelError(thrown: unknown): OnecopyError {
  if (thrown instanceof OnecopyError) return thrown
  const text = messageOf(thrown)
  const isNoModel = /protobuf parsing failed|ModelProto does not have a graph/i.test(text)
  return new OnecopyError(
    isNoModel ? 'MODEL_INVALID' : 'MODEL_UNSUPPORTED',
    `the runtime rejects the model: ${text}`,
  )
}

/** The batching result of an image until its trial runs have finished. */
const NOT_TRIED = batchingResult(false, 'the probe did not finish')

interface Compilation {
  readonly key: string
  readonly workFolder: string
  readonly folder: string
  readonly original: Model
  readonly modelPath: string
  readonly modelInterface: ModelInterface
  readonly defaults: Defaults
  /** Whether `original` differs from the file. */
  readonly isRewritten: boolean
  /** Why the declared shapes rule out batching; null if they do not. */
  readonly against: string | null
  /** Whether trial runs are made during compilation. */
  readonly hasTrials: boolean
}

function say(line: CompileReply | CompileNotice): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

/** The batching result determined by declared shapes and graph; null if trial runs decide. */
function batchingOf(model: Model, { against, modelInterface }: Compilation): Batching | null {
  if (against !== null) return batchingResult(false, against)
  const random = findRandomNode(model)
  if (random !== null) {
    const remedy = 'export the model for inference, or draw the random numbers outside of it'
    return notProven({ ...random, node: random.name, remedy })
  }
  const namesOf = (specs: readonly { readonly name: string }[]) => specs.map(({ name }) => name)
  // Requests that send an optional input run alone; batches use its default.
  const inputs = namesOf(requiredOf(modelInterface.inputs))
  const proof = proveRowsApart({ model, inputs, outputs: namesOf(modelInterface.outputs) })
  return proof.isProven ? null : notProven(proof)
}

/**
 * Loads an image the way a worker does and throws the runtime's error if that fails. If the graph is proven
 * to keep rows independent, batching is also tried and the header records the result.
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
    // Trial runs use the defaults of optional inputs, because requests that send them run alone.
    const required = requiredOf(inputs)
    const askedInputs = required.filter(({ name }) => asked.has(name))
    const run = async (tensors: readonly Tensor[], names: readonly string[]) => [
      ...session.run(tensors, names).outputs,
    ]
    // A later crash is caused by trial runs; the model can be served without them.
    say({ notice: 'probing' })
    const change: Parameters<typeof updateHeader>[1] = {}
    // A random model that gives the same result twice by chance would fail its self-check in a later load.
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

/** Writes the optimised graph, weights and packed kernels to one file, and verifies that it loads. */
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

/**
 * Keeps the original model if the runtime cannot write it in a shareable form; it is served without sharing.
 */
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

/** The digest of the model, and facts to recognise its files by, unless they changed while they were read. */
async function digestKnown(options: {
  /** As of before `bytes` were read. */
  readonly modelFacts: FileFacts
  readonly bytes: Uint8Array
  readonly folder: string
  readonly external: readonly string[]
}): Promise<{
  readonly digest: string
  readonly known: KnownFiles | null
  /** External data included. */
  readonly modelBytes: number
}> {
  const { modelFacts, bytes, folder, external } = options
  // A missing file gets a better error where it is read.
  const externalFacts = await factsOf(folder, external).catch(() => [])
  const digest = await digestModel({ bytes, folder, externalFiles: external })
  const files = await factsOf(folder, [modelFacts.name, ...external])
  return {
    digest,
    known: areSettled([modelFacts, ...externalFacts], files) ? { files, digest } : null,
    modelBytes: files.reduce((sum, file) => sum + file.bytes, 0),
  }
}

async function compile(request: CompileRequest): Promise<CompileReply> {
  const { modelPath, workFolder } = request
  const folder = dirname(modelPath)
  const [modelFacts] = (await factsOf(folder, [basename(modelPath)])) as [FileFacts]
  const bytes = await readModel(modelPath)
  const original = parseModel(bytes)
  // Checked before the runtime loads the model, because it aborts the process on some of these types.
  checkDeclared(original.graph)
  const { digest, known, modelBytes } = await digestKnown({
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
  say({ notice: 'compiling', modelBytes })

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
    // If both forms fail, the error of the first attempt is the clearer one.
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

// The pipe closes when the server dies; the result is not needed then.
const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit(1))
for await (const line of lines) say(await answer(line))
