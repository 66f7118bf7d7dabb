/**
 * The step from parsed JSON to a typed request, with refusals that name the tensor they are about.
 */
import { DATATYPES } from '../../tensor.js'
import { quoted, requestInvalid, shown, tensorInvalid } from './faults.js'
import type { JsonLimits } from './json.js'
import { type RequestSkeleton, requestSkeletonSchema } from './schema.js'

/** ONNX has no such tensors; a longer shape is an attack on the checks themselves. */
const MAX_RANK = 64
const MAX_PARAMETERS = 256

/** Holds a parsed request, tensor data taken out, against the schema. */
export function checkSkeleton(root: unknown, limits: JsonLimits): RequestSkeleton {
  checkSizes(root, limits)
  dropNulls(root)
  if (isPlainSkeleton(root)) return root
  const result = requestSkeletonSchema.safeParse(root)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const [list, index, key] = issue?.path ?? []
  const text = `${issue?.path.join('.') || 'the request'}: ${issue?.message}`
  const name = fieldOf(elementsOf(fieldOf(root, String(list)))[Number(index)], 'name')
  if (list !== 'inputs' || typeof name !== 'string') throw requestInvalid(text)
  const label = `input ${quoted(name)}`
  if (key === 'shape' || key === 'datatype') {
    const value = fieldOf(elementsOf(fieldOf(root, 'inputs'))[Number(index)], key)
    const at = key === 'shape' && Array.isArray(value) ? value[Number(issue?.path[3])] : value
    const wanted = key === 'shape' ? 'dimensions that are non-negative integers' : 'a known datatype'
    throw tensorInvalid(label, `expected ${wanted}, got ${shown(at)}`)
  }
  throw requestInvalid(`${label}: ${text}`)
}

/**
 * Whether a request certainly matches the schema: most do, and the schema takes ten times as long.
 * False only means that the schema decides.
 */
export function isPlainSkeleton(root: unknown): root is RequestSkeleton {
  if (!isObject(root)) return false
  const { id, parameters, inputs, outputs } = root
  return (
    (id === undefined || typeof id === 'string') &&
    arePlainParameters(parameters) &&
    Array.isArray(inputs) &&
    inputs.every(isPlainInput) &&
    (outputs === undefined || (Array.isArray(outputs) && outputs.every(isPlainOutput)))
  )
}

function isPlainInput(input: unknown): boolean {
  if (!isObject(input)) return false
  const { name, shape, datatype, parameters, data } = input
  return (
    typeof name === 'string' &&
    Array.isArray(shape) &&
    shape.every(isCount) &&
    typeof datatype === 'string' &&
    Object.hasOwn(DATATYPES, datatype) &&
    arePlainParameters(parameters) &&
    (data === undefined || isCount(data))
  )
}

function isPlainOutput(output: unknown): boolean {
  return isObject(output) && typeof output.name === 'string' && arePlainParameters(output.parameters)
}

function arePlainParameters(parameters: unknown): boolean {
  if (parameters === undefined) return true
  if (!isObject(parameters)) return false
  for (const name in parameters) {
    const value = parameters[name]
    const isPlain = typeof value === 'string' || typeof value === 'boolean' || Number.isFinite(value)
    if (!isPlain) return false
  }
  return true
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A bound on the number of elements, checked first because the schema reports every wrong one. */
function checkSizes(root: unknown, { maxTensors }: JsonLimits): void {
  const check = (value: number, most: number, what: string) => {
    if (value > most) throw requestInvalid(`more than ${most} ${what} in one request`)
  }
  const checkParameterCount = (holder: unknown) => {
    const parameters = fieldOf(holder, 'parameters')
    if (typeof parameters !== 'object' || parameters === null) return
    check(Object.keys(parameters).length, MAX_PARAMETERS, 'parameters in one place')
  }
  checkParameterCount(root)
  for (const list of ['inputs', 'outputs']) {
    const tensors = elementsOf(fieldOf(root, list))
    check(tensors.length, maxTensors, list)
    for (const tensor of tensors) {
      checkParameterCount(tensor)
      check(elementsOf(fieldOf(tensor, 'shape')).length, MAX_RANK, 'dimensions of one tensor')
    }
  }
}

/** An optional member that is null is an absent one: clients with optional fields write them so. */
function dropNulls(root: unknown): void {
  dropMembers(root, ['id', 'parameters', 'outputs'])
  for (const list of ['inputs', 'outputs']) {
    for (const tensor of elementsOf(fieldOf(root, list))) dropMembers(tensor, ['parameters'])
  }
}

/** Removes those of the members that are null. */
function dropMembers(holder: unknown, keys: readonly string[]): void {
  for (const key of keys) if (fieldOf(holder, key) === null) delete (holder as Record<string, unknown>)[key]
}

function fieldOf(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined
  return (value as Record<string, unknown>)[key]
}

function elementsOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}
