/**
 * The model of a bench: a generated one by the name of its recipe, or a real one from ../shared/models as
 * `real/NAME`, copied into a separate repository, with inputs from its test data.
 */
import { existsSync, readFileSync } from 'node:fs'
import { copyFile, mkdir, readdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fromBinary } from '@bufbuild/protobuf'
import { ModelProtoSchema, TensorProtoSchema } from '../../src/onnx/onnx_pb.js'
import { namesOption, type Option } from '../harness/options.js'
import { MODELS_DIR, PACKAGE_ROOT } from '../harness/paths.js'
import {
  buildRequest,
  type Encoding,
  type InferRequest,
  type InputTensor,
  inputTensors,
  type TensorElements,
} from '../harness/requests.js'
import { FLOAT, INT64 } from './onnx-file.js'
import { parseRecipe, recipeName } from './recipes.js'
import { ensureModel } from './store.js'

const REAL = 'real/'
const REAL_DIR = resolve(PACKAGE_ROOT, '..', 'shared', 'models')
const INT32 = 6

/** @throws Error with all valid names. */
function checkName(name: string): string {
  if (name.startsWith(REAL)) realPath(name.slice(REAL.length))
  else parseRecipe(name)
  return name
}

/** A command-line option for a generated model. */
export function modelOption(words: { readonly help: string; readonly default: string }): Option<string> {
  return { placeholder: 'NAME', ...words, parse: (text) => recipeName(parseRecipe(text)) }
}

/** A command-line option for generated and real models. */
export function modelsOption(words: {
  readonly default: string
  readonly quick?: string
}): Option<readonly string[]> {
  const option = namesOption({
    help: 'Models, one table for each; real/NAME is in ../shared/models',
    ...words,
  })
  return { ...option, parse: (text) => option.parse(text).map(checkName) }
}

export interface Subject {
  /** The name on the command line. */
  readonly id: string
  readonly name: string
  readonly bytes: number
  /** Contains only this model. */
  readonly repositoryDir: string
  readonly path: string
  readonly outputName: string
  /** `count` sets of inputs with one row each. A real model repeats a single set. */
  inputs(count: number): readonly (readonly InputTensor[])[]
}

export function requestsTo(
  subject: Subject,
  { encoding, count }: { readonly encoding: Encoding; readonly count: number },
): InferRequest[] {
  const { name: modelName, outputName } = subject
  return subject.inputs(count).map((inputs) => buildRequest({ modelName, inputs, outputName, encoding }))
}

/** @throws Error if the model does not exist or its inputs or outputs are not supported by the variants. */
export async function findSubject(name: string): Promise<Subject> {
  return name.startsWith(REAL) ? await realSubject(name.slice(REAL.length)) : await generatedSubject(name)
}

async function generatedSubject(text: string): Promise<Subject> {
  const recipe = parseRecipe(text)
  const { name, bytes, repositoryDir, path } = await ensureModel(recipe)
  return {
    ...{ id: name, name, bytes, repositoryDir, path, outputName: 'output' },
    inputs: (count) => inputTensors(recipe, count, 1).map((tensor) => [tensor]),
  }
}

function realPath(name: string): string {
  const path = join(REAL_DIR, name, 'model.onnx')
  if (existsSync(path)) return path
  throw new Error(`no real model ${JSON.stringify(name)}: ${path} is missing`)
}

async function realSubject(name: string): Promise<Subject> {
  const source = realPath(name)
  const repositoryDir = join(MODELS_DIR, `real-${name}`)
  const path = join(repositoryDir, name, '1', 'model.onnx')
  await mkdir(dirname(path), { recursive: true })
  await copyFile(source, path)
  const { graph } = fromBinary(ModelProtoSchema, readFileSync(path))
  const output = graph?.output.find(({ type }) => {
    return type?.value.case === 'tensorType' && type.value.value.elemType === FLOAT
  })
  if (graph === undefined || output === undefined) throw new Error(`${name}: expected an output of FP32`)
  const weights = new Set(graph.initializer.map((weight) => weight.name))
  const inputNames = graph.input.map((input) => input.name).filter((input) => !weights.has(input))
  const folder = join(REAL_DIR, name, 'test_data_set_0')
  const files = (await readdir(folder)).filter((file) => file.startsWith('input_'))
  if (files.length !== inputNames.length) {
    throw new Error(`${name}: expected ${inputNames.length} inputs in ${folder}, found ${files.length}`)
  }
  const inputs = inputNames.map((input, index) => readInput(join(folder, `input_${index}.pb`), input))
  const { size: bytes } = await stat(path)
  return {
    ...{ id: `${REAL}${name}`, name, bytes, repositoryDir, path, outputName: output.name },
    inputs: (count) => Array(count).fill(inputs) as InputTensor[][],
  }
}

function readInput(path: string, name: string): InputTensor {
  const { dims, dataType, rawData } = fromBinary(TensorProtoSchema, readFileSync(path))
  const { buffer } = Uint8Array.from(rawData)
  const tensor = (datatype: InputTensor['datatype'], data: TensorElements): InputTensor => {
    const shape = dims.map(Number)
    if (data.length === shape.reduce((product, size) => product * size, 1))
      return { name, datatype, shape, data }
    throw new Error(`${path}: expected the elements as raw data`)
  }
  if (dataType === FLOAT) return tensor('FP32', new Float32Array(buffer))
  if (dataType === INT64) return tensor('INT64', new BigInt64Array(buffer))
  if (dataType === INT32) return tensor('INT32', new Int32Array(buffer))
  throw new Error(`${path}: expected FP32, INT32 or INT64, got element type ${dataType}`)
}
