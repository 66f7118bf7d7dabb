/** Model lookup and metadata for front ends. */
import { OnecopyError, outOfServiceError } from '../errors.js'
import { quoted } from '../protocol/v2/faults.js'
import type { Datatype, TensorSpec } from '../tensor.js'
import type { ModelDirectory, ServedModel } from './service.js'

/** The text of Triton, which its example clients compare. */
const UNKNOWN_MODEL = 'Request for unknown model'
export const VERSION_PATTERN = /^\d+$/

export function unknownModel(
  models: ModelDirectory,
  name: string,
  version: string | undefined,
): OnecopyError {
  const known = models.versions(name)
  return new OnecopyError(
    'MODEL_NOT_FOUND',
    known.length === 0
      ? `${UNKNOWN_MODEL}: ${quoted(name)} is not found`
      : `${UNKNOWN_MODEL}: ${quoted(name)} has no version ${quoted(version ?? '')}; it has ${known.join(', ')}`,
  )
}

/**
 * The given version of a model, or the newest if none is given.
 * @throws OnecopyError MODEL_NOT_FOUND; MODEL_OUT_OF_SERVICE or MODEL_DISABLED if it is out of service and is
 *   needed for inference, or is not loaded.
 */
export function requireModel(
  models: ModelDirectory,
  { name, version }: { readonly name: string; readonly version: string | undefined },
  { isForInference }: { readonly isForInference: boolean },
): ServedModel {
  const isVersion = version === undefined || VERSION_PATTERN.test(version)
  const out = isVersion ? models.outOfService(name, version) : null
  if (out !== null && isForInference) throw outOfServiceError(out, out.state)
  const model = isVersion ? models.find(name, version) : null
  if (model !== null) return model
  throw out === null ? unknownModel(models, name, version) : outOfServiceError(out, out.state)
}

/** The served versions of a model, oldest first. */
export function versionsOf(models: ModelDirectory, name: string): ServedModel[] {
  return models
    .versions(name)
    .toReversed()
    .flatMap((version) => models.find(name, version) ?? [])
}

/** The protocol cannot express an unknown rank: one variable dimension is the closest form. */
export function describeTensor({ name, datatype, shape, optional }: TensorSpec): {
  name: string
  datatype: Datatype
  shape: number[]
  optional?: true
} {
  return { name, datatype, shape: [...(shape ?? [-1])], ...(optional && { optional }) }
}
