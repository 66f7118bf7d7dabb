/** `attach`: a model that another process of this user keeps in memory, for this one. */
import { AttachedModel } from './attached-model.js'
import { type AttachOptions, readAttachOptions } from './options.js'

/**
 * Attaches to a model that `onecopy serve` or `onecopy load` of the same user keeps: its weights are mapped
 * read-only, not loaded. `name` is the model's name, or a bundle's Identifier or Slug. Close it when it is
 * not needed any more: its thread keeps the process alive.
 * @throws OnecopyError MODEL_NOT_RESIDENT with the command that would keep it; CONFIG_INVALID,
 *   SEGMENT_FOLDER_INVALID, SEGMENT_INVALID, SEGMENT_SPACE, SELF_CHECK_FAILED, MODEL_OUT_OF_SERVICE, TIMEOUT.
 */
export async function attach(name: string, options: AttachOptions = {}): Promise<AttachedModel> {
  return await AttachedModel.open(readAttachOptions(name, options))
}
