/**
 * Checks a request against the declared interface of the model, before any tensor data is read. After
 * this step every input's name, datatype, shape and element count are known to fit.
 */
import { elementCount, type TensorSpec } from '../../tensor.js'
import { classesAskedFor } from './classification.js'
import type { ExpectedData } from './datatypes.js'
import { quoted, requestInvalid, shown, shownShape, tensorInvalid } from './faults.js'
import { requireJsonForm } from './json-encode.js'
import type { RequestParameters, SkeletonInput, SkeletonOutput } from './schema.js'
import { type SharedPlace, sharedPlaceOf } from './shared-place.js'

/** What the codec needs to know about the model. */
export interface ModelSpec {
  readonly name: string
  readonly version: string
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
}

/** One output to answer, and how. */
export interface OutputRequest {
  readonly name: string
  readonly binary: boolean
  /** The number of highest values, if the request wants those instead of the output. */
  readonly classes?: number
  /** Only where it is to be written to shared memory. */
  readonly place?: SharedPlace
}

/** What this server offers beyond the core of the protocol. */
export interface Features {
  readonly isSharedMemoryEnabled: boolean
}

/** An input that fits the model, and where its data is. */
export interface InputPlan extends ExpectedData {
  readonly name: string
  /** Position in the model's inputs. */
  readonly position: number
  readonly source:
    | { readonly valueIndex: number }
    | { readonly binaryBytes: number }
    | { readonly place: SharedPlace }
}

/** Checks the inputs against the model; the plans are in the order of the request. */
export function planInputs(
  inputs: readonly SkeletonInput[],
  { model, features }: { readonly model: ModelSpec; readonly features: Features },
): InputPlan[] {
  const seen = new Set<string>()
  const plans = inputs.map((input) => {
    const label = `input ${quoted(input.name)}`
    if (seen.has(input.name)) throw tensorInvalid(label, 'given more than once')
    seen.add(input.name)
    const position = model.inputs.findIndex(({ name }) => name === input.name)
    const spec = model.inputs[position]
    if (spec === undefined) {
      const known = model.inputs.map(({ name }) => quoted(name)).join(', ')
      throw tensorInvalid(label, `model ${quoted(model.name)} has no such input; its inputs are ${known}`)
    }
    if (input.datatype !== spec.datatype) {
      throw tensorInvalid(label, `expected datatype ${spec.datatype}, got ${input.datatype}`)
    }
    const count = checkShape(input.shape, spec, label)
    const { name, datatype, shape } = input
    return { name, label, datatype, shape, count, position, source: sourceOf(input, { label, features }) }
  })
  for (const spec of model.inputs) {
    if (seen.has(spec.name) || spec.optional === true) continue
    const wanted = `${spec.datatype} ${shapeOf(spec)}`
    throw tensorInvalid(`input ${quoted(spec.name)}`, `missing; the model expects ${wanted}`)
  }
  return plans
}

/** Rank, fixed dimensions and a countable number of elements; returns that number. */
export function checkShape(shape: readonly number[], spec: TensorSpec, label: string): number {
  const fits =
    spec.shape === null ||
    (spec.shape.length === shape.length && spec.shape.every((size, axis) => size < 0 || size === shape[axis]))
  if (!fits) throw tensorInvalid(label, `expected shape ${shapeOf(spec)}, got ${shownShape(shape)}`)
  const count = elementCount(shape)
  if (Number.isNaN(count)) throw tensorInvalid(label, `shape ${shownShape(shape)} has too many elements`)
  return count
}

function shapeOf(spec: TensorSpec): string {
  return spec.shape === null ? 'of any rank' : shownShape(spec.shape)
}

/** Exactly one place for the data of an input. */
function sourceOf(
  input: SkeletonInput,
  { label, features }: { readonly label: string; readonly features: Features },
): InputPlan['source'] {
  const parameters = input.parameters ?? {}
  checkParameters(parameters, label)
  const isShared = Object.hasOwn(parameters, 'shared_memory_region')
  const binaryBytes = parameters.binary_data_size
  const places = Number(input.data !== undefined) + Number(binaryBytes !== undefined) + Number(isShared)
  if (places !== 1) {
    const wanted = 'exactly one of data, binary_data_size and shared_memory_region'
    throw requestInvalid(`${label}: expected ${wanted}, got ${places === 0 ? 'none' : places}`)
  }
  const place = sharedPlaceOf(parameters, { label, isEnabled: features.isSharedMemoryEnabled })
  if (place !== null) return { place }
  if (input.data !== undefined) return { valueIndex: input.data }
  if (typeof binaryBytes !== 'number' || !Number.isSafeInteger(binaryBytes) || binaryBytes < 0) {
    throw requestInvalid(`${label}: binary_data_size must be a number of bytes, got ${shown(binaryBytes)}`)
  }
  return { binaryBytes }
}

/** The outputs to return: those that the request names, or all of the model. */
export function planOutputs(
  outputs: readonly SkeletonOutput[] | undefined,
  parameters: RequestParameters,
  { model, features }: { readonly model: ModelSpec; readonly features: Features },
): OutputRequest[] {
  const byDefault = flag(parameters, 'binary_data_output', 'the request') ?? false
  const asked: readonly (Pick<SkeletonOutput, 'name'> & Partial<SkeletonOutput>)[] = outputs?.length
    ? outputs
    : model.outputs
  const seen = new Set<string>()
  return asked.map(({ name, parameters = {} }) => {
    const label = `output ${quoted(name)}`
    if (seen.has(name)) throw requestInvalid(`${label}: asked for more than once`)
    seen.add(name)
    const spec = model.outputs.find((output) => output.name === name)
    if (spec === undefined) {
      const known = model.outputs.map((output) => quoted(output.name)).join(', ')
      throw requestInvalid(
        `${label}: model ${quoted(model.name)} has no such output; its outputs are ${known}`,
      )
    }
    checkParameters(parameters, label)
    const binary = flag(parameters, 'binary_data', label) ?? byDefault
    const classes = classesAskedFor(parameters, spec)
    const place = sharedPlaceOf(parameters, { label, isEnabled: features.isSharedMemoryEnabled })
    if (place !== null && classes !== null) {
      throw requestInvalid(`${label}: expected classification or shared memory, got both`)
    }
    if (classes !== null) return { name, binary, classes }
    if (place !== null) return { name, binary: false, place }
    if (!binary) requireJsonForm(spec)
    return { name, binary }
  })
}

/**
 * Parameters of a request that begin or belong to a sequence would be computed without its state, and
 * wrongly: no model here has one. Parameters that mean no sequence are allowed.
 */
export function checkSequence(parameters: RequestParameters): void {
  const { sequence_id: id = 0, sequence_start: start = false, sequence_end: end = false } = parameters
  if ((id === 0 || id === '') && start === false && end === false) return
  throw requestInvalid('parameters sequence_id, sequence_start and sequence_end: no model here keeps state')
}

/** Names that begin with `triton_` are reserved: Triton's parameters extension. */
export function checkParameters(parameters: RequestParameters, label: string): void {
  for (const name of Object.keys(parameters)) {
    if (name.startsWith('triton_')) {
      throw requestInvalid(`${label}: parameter ${quoted(name)} is reserved: no name may begin with triton_`)
    }
  }
}

function flag(parameters: RequestParameters, name: string, label: string): boolean | undefined {
  const value = parameters[name]
  if (value === undefined || typeof value === 'boolean') return value
  throw requestInvalid(`${label}: parameter ${name} must be true or false, got ${shown(value)}`)
}
