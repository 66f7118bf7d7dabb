/**
 * The one file that loads ONNX Runtime: how a model is compiled into a shareable form, how that form is
 * loaded so that its weights stay shared, and how tensors cross the border.
 *
 * `create` and `run` block the calling thread: call them in a compile process or an inference thread.
 */
import { createRequire } from 'node:module'
import type { InferenceSession, Tensor as RuntimeTensor } from 'onnxruntime-node'
import type { Binding } from 'onnxruntime-node/dist/binding.js'
import { messageOf, OnecopyError } from '../errors.js'
import { monotonicNs } from '../process/clock.js'
import { DATATYPES, type Datatype, type NumericData, type Tensor, type TensorSpec } from '../tensor.js'
import { checkTexts, mayHoldReplacement } from './texts.js'

// Required rather than imported: the package is CommonJS and its library is 45 MB, loaded where it is used.
const require = createRequire(import.meta.url)
type Runtime = typeof import('onnxruntime-node')
let loaded: Runtime | undefined
function runtime(): Runtime {
  loaded ??= loadWithBitsForFloat16()
  return loaded
}

/**
 * Where JavaScript has a Float16Array (Node 24 and later), the runtime's JavaScript half wraps float16 in it
 * and its native half reads it as empty ("not enough space: expected 8, got 0"). It looks for the class
 * once, at its first tensor: without it, float16 is the sixteen bits in a Uint16Array, on every Node.
 */
function loadWithBitsForFloat16(): Runtime {
  const hidden = Object.getOwnPropertyDescriptor(globalThis, 'Float16Array')
  if (hidden !== undefined) Reflect.deleteProperty(globalThis, 'Float16Array')
  try {
    const module = require('onnxruntime-node') as Runtime
    new module.Tensor('bool', [true], [1])
    return module
  } finally {
    if (hidden !== undefined) Object.defineProperty(globalThis, 'Float16Array', hidden)
  }
}

/** The module that `InferenceSession` wraps, after the runtime is loaded as on every Node. */
function nativeBinding(): typeof import('onnxruntime-node/dist/binding.js') {
  runtime()
  return require('onnxruntime-node/dist/binding.js') as typeof import('onnxruntime-node/dist/binding.js')
}

/** Loads the library without a model: what a process that holds nothing else is measured against. */
export function loadRuntime(): void {
  runtime()
}

/** Initializers from this size on leave the graph and become shareable; smaller ones are not worth a mapping each. */
const EXTERNAL_FROM_BYTES = 1024
const ERRORS_ONLY = 3

export interface SessionThreads {
  /** Threads inside one operator. */
  readonly threads: number
}

export interface SessionMemory {
  /**
   * Whether memory for activations is kept from run to run. Those of a few hundred tokens pass the malloc thresholds,
   * and would be faulted in anew every time: 500 to 1,700 pages, up to a tenth of the time of 256 tokens.
   */
  readonly keepsActivations?: boolean | undefined
}

function commonOptions({
  threads,
  keepsActivations = false,
}: SessionThreads & SessionMemory): InferenceSession.SessionOptions {
  return {
    executionProviders: ['cpu'],
    executionMode: 'sequential',
    interOpNumThreads: 1,
    intraOpNumThreads: threads,
    // Without, and with the malloc thresholds that workers run under, activations go back to the system after a run.
    enableCpuMemArena: keepsActivations,
    logSeverityLevel: ERRORS_ONLY,
  }
}

/** Spinning threads take twice the CPU and halve the throughput of workers that share cores. */
const NO_SPINNING = { intra_op: { allow_spinning: '0' } }

/** Options that change what a compiled segment holds: part of its cache key. */
export const COMPILE_OPTIONS = {
  graphOptimizationLevel: 'all',
  externalFromBytes: EXTERNAL_FROM_BYTES,
  prepacked: true,
} as const

/**
 * Loads and optimises the model at `modelPath` (or `bytes` with its folder) and writes `graphPath` and,
 * beside it, `dataFileName` with the raw weights and the kernels' packed copies.
 */
export async function compileModel(options: {
  readonly model: string | { readonly bytes: Uint8Array; readonly folder: string }
  readonly graphPath: string
  readonly dataFileName: string
}): Promise<void> {
  const { model } = options
  const sessionOptions: InferenceSession.SessionOptions = {
    ...commonOptions({ threads: 1 }),
    graphOptimizationLevel: COMPILE_OPTIONS.graphOptimizationLevel,
    optimizedModelFilePath: options.graphPath,
    extra: {
      session: {
        optimized_model_external_initializers_file_name: options.dataFileName,
        optimized_model_external_initializers_min_size_in_bytes: String(EXTERNAL_FROM_BYTES),
        save_external_prepacked_constant_initializers: '1',
        ...(typeof model === 'string' ? {} : { model_external_initializers_file_folder_path: model.folder }),
      },
    },
  }
  const { InferenceSession } = runtime()
  const session =
    typeof model === 'string'
      ? await InferenceSession.create(model, sessionOptions)
      : await InferenceSession.create(model.bytes, sessionOptions)
  await session.release()
}

/** What the runtime finds an output to be. */
export interface OutputDescription {
  readonly name: string
  /** The binding's name of the element type; null for what is no tensor. */
  readonly datatype: RuntimeTensor.Type | null
  /** Names stand for variable dimensions; empty for a scalar, and where nothing is known. */
  readonly shape: readonly (number | string)[] | null
}

/** Loads a model to describe its outputs. @throws the runtime's error if it cannot load the model. */
export async function describeOutputs(model: {
  readonly bytes: Uint8Array
  readonly folder: string
}): Promise<OutputDescription[]> {
  const session = await runtime().InferenceSession.create(model.bytes, {
    ...commonOptions({ threads: 1 }),
    graphOptimizationLevel: 'disabled',
    extra: { session: { model_external_initializers_file_folder_path: model.folder } },
  })
  const described = session.outputMetadata.map((one) => ({
    name: one.name,
    datatype: one.isTensor ? one.type : null,
    shape: one.isTensor ? one.shape : null,
  }))
  await session.release()
  return described
}

/** What one run gave. */
export interface RunOutcome {
  readonly outputs: readonly Tensor[]
  /** When the runtime began, in nanoseconds on the clock of process.hrtime. */
  readonly startedNs: number
  /** Time inside the runtime, in nanoseconds. */
  readonly computeNs: number
}

export interface LoadOptions extends SessionThreads, SessionMemory {
  readonly graph: Uint8Array
  /** Folder that the graph's external tensors are resolved against; null when there are none. */
  readonly folder: string | null
  readonly form: 'compiled' | 'original'
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Fed where a run is given no other. */
  readonly defaults?: readonly Tensor[]
}

/**
 * A loaded model. Owned by one thread; `close` frees its memory.
 *
 * It uses the runtime's synchronous binding. `InferenceSession.run` blocks its thread just the same, but begins in a
 * later turn of the event loop: a turn of latency for every request, and a time that cannot be measured.
 */
export class Session {
  readonly #session: Binding.InferenceSession
  /** Read once: the binding makes the list anew for every reader. */
  readonly #inputNames: readonly string[]
  readonly #outputs: readonly TensorSpec[]
  readonly #inputs: ReadonlyMap<string, TensorSpec>
  readonly #defaults: readonly (readonly [name: string, value: RuntimeTensor])[]
  /** Whether its outputs can be checked for bytes that are not UTF-8. */
  readonly #areTextsChecked: boolean
  #isClosed = false

  private constructor(session: Binding.InferenceSession, options: LoadOptions) {
    this.#session = session
    this.#inputNames = session.inputMetadata.map(({ name }) => name)
    this.#outputs = options.outputs
    const hasTexts = options.outputs.some(({ datatype }) => datatype === 'BYTES')
    this.#areTextsChecked = hasTexts && !mayHoldReplacement(options.graph)
    this.#inputs = new Map(options.inputs.map((spec) => [spec.name, spec]))
    this.#defaults = (options.defaults ?? []).map((tensor) => [tensor.name, toRuntime(tensor)] as const)
  }

  /** Blocks the thread. @throws what the runtime says of a model that it cannot load. */
  static load(options: LoadOptions): Session {
    const { graph } = options
    const { binding, initOrt } = nativeBinding()
    initOrt()
    const session = new binding.InferenceSession()
    session.loadModel(graph.buffer as ArrayBuffer, graph.byteOffset, graph.byteLength, {
      ...commonOptions(options),
      // A compiled graph is final: optimising it again would undo the match with its packed weights.
      graphOptimizationLevel: options.form === 'compiled' ? 'disabled' : 'all',
      extra: {
        session: {
          ...NO_SPINNING,
          ...(options.folder === null
            ? {}
            : { model_external_initializers_file_folder_path: options.folder }),
        },
      },
    })
    return new Session(session, options)
  }

  /**
   * Runs the model once. Only outputs that are tensors are asked for: asking for others throws.
   * @throws OnecopyError MODEL_RUN_FAILED with the runtime's own words.
   */
  run(inputs: readonly Tensor[], outputNames: readonly string[]): RunOutcome {
    const feeds: Record<string, RuntimeTensor> = {}
    for (const [name, value] of this.#defaults) feeds[name] = value
    for (const tensor of inputs) feeds[tensor.name] = toRuntime(tensor)
    const missing = this.#inputNames.find((name) => feeds[name] === undefined)
    if (missing !== undefined)
      throw new OnecopyError(
        'MODEL_RUN_FAILED',
        `the model failed while running: input ${JSON.stringify(missing)} is missing`,
      )
    const fetches: Record<string, null> = {}
    for (const name of outputNames) fetches[name] = null
    const startedNs = monotonicNs()
    let results: Record<string, unknown>
    try {
      results = this.#session.run(feeds, fetches, {})
    } catch (thrown) {
      throw new OnecopyError('MODEL_RUN_FAILED', `the model failed while running: ${messageOf(thrown)}`)
    }
    const computeNs = monotonicNs() - startedNs
    const outputs = outputNames.map((name) => {
      const spec = this.#outputs.find((output) => output.name === name)
      const value = results[name]
      if (spec === undefined || value === undefined)
        throw new Error(`output ${name} is not one of the model's`)
      return fromRuntime(name, spec.datatype, value as RuntimeTensor)
    })
    if (this.#areTextsChecked) checkTexts(outputs, inputs)
    return { outputs, startedNs, computeNs }
  }

  /** Names of the inputs that the loaded graph really asks for. */
  get inputNames(): readonly string[] {
    return this.#inputNames.filter((name) => this.#inputs.has(name))
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#session.dispose()
  }
}

const RUNTIME_TYPES: Record<Datatype, RuntimeTensor.Type> = {
  BOOL: 'bool',
  UINT8: 'uint8',
  UINT16: 'uint16',
  UINT32: 'uint32',
  UINT64: 'uint64',
  INT8: 'int8',
  INT16: 'int16',
  INT32: 'int32',
  INT64: 'int64',
  FP16: 'float16',
  // The binding has no bfloat16: such inputs and outputs are cast inside the compiled graph.
  BF16: 'float32',
  FP32: 'float32',
  FP64: 'float64',
  BYTES: 'string',
}

/** Every bfloat16 is the upper half of a float32, so widening is exact. */
function widenBfloat16(bits: Uint16Array): Float32Array<ArrayBuffer> {
  const words = new Uint32Array(bits.length)
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16
  return new Float32Array(words.buffer)
}

/** Exact for values that came out of a bfloat16, which is all this is used for. */
function narrowToBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length)
  const bits = new Uint16Array(values.length)
  for (let i = 0; i < bits.length; i++) bits[i] = (words[i] as number) >>> 16
  return bits
}

function toRuntime({ datatype, shape, data }: Tensor): RuntimeTensor {
  const { Tensor: RuntimeTensorClass } = runtime()
  const type = RUNTIME_TYPES[datatype]
  const elements = datatype === 'BF16' ? widenBfloat16(data as Uint16Array) : data
  // The binding's constructor is overloaded by type; the pair is right by the table above.
  const Construct = RuntimeTensorClass as unknown as new (
    type: RuntimeTensor.Type,
    data: unknown,
    shape: readonly number[],
  ) => RuntimeTensor
  return new Construct(type, elements, shape)
}

function fromRuntime(name: string, datatype: Datatype, value: RuntimeTensor): Tensor {
  const expected = RUNTIME_TYPES[datatype]
  if (value.type !== expected) {
    throw new OnecopyError(
      'MODEL_RUN_FAILED',
      `output ${JSON.stringify(name)}: expected ${expected}, the model gave ${value.type}`,
    )
  }
  const shape = [...value.dims]
  if (datatype === 'BYTES') return { name, datatype, shape, data: value.data as unknown as string[] }
  const raw = value.data as NumericData
  if (datatype === 'BF16')
    return { name, datatype, shape, data: narrowToBfloat16(raw as Float32Array<ArrayBuffer>) }
  const { storage } = DATATYPES[datatype]
  // Newer Node gives a Float16Array: the protocol wants its bits.
  const data =
    raw instanceof storage ? raw : (new storage(raw.buffer, raw.byteOffset, raw.length) as NumericData)
  return { name, datatype, shape, data }
}
