/** What front ends tell of models, and how they look for them. */
import { OnecopyError, outOfServiceError } from '../errors.js'
import { quoted } from '../protocol/v2/faults.js'
import type { Datatype, TensorSpec } from '../tensor.js'
import type { ModelDirectory, ServedModel } from './service.js'

/** Triton's words: its examples look for them. */
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
 * The named version of a model, or the newest where none is named.
 * @throws OnecopyError MODEL_NOT_FOUND; MODEL_OUT_OF_SERVICE, MODEL_DISABLED where it answers no request and is to be
 *   asked for inference, or is not loaded.
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

/** Every version of a model that answers, oldest first. */
export function versionsOf(models: ModelDirectory, name: string): ServedModel[] {
  return models
    .versions(name)
    .toReversed()
    .flatMap((version) => models.find(name, version) ?? [])
}

/** A tensor of unknown rank has no form in the protocol: one variable dimension comes closest. */
export function describeTensor({ name, datatype, shape, optional }: TensorSpec): {
  name: string
  datatype: Datatype
  shape: number[]
  optional?: true
} {
  return { name, datatype, shape: [...(shape ?? [-1])], ...(optional && { optional }) }
}
