/** The package: a model that another process keeps, in this one; a server in this one; and what goes with them. */
import type { ScriptOptions } from '../src/config/load.js'
import type { Server } from './serve.js'

export type { ErrorCode } from '../src/errors.js'
export { OnecopyError } from '../src/errors.js'
export { attach } from '../src/library/attach.js'
export type { AttachedModel, ModelEvents } from '../src/library/attached-model.js'
export type { AttachOptions, RunOptions } from '../src/library/options.js'
export type { RouteOptions } from '../src/library/route-options.js'
export type { ExpressMiddleware, FastifyPlugin, KoaMiddleware } from '../src/library/routes.js'
export type { Elements, InputValue, OutputValue } from '../src/library/tensors.js'
export type { Datatype, TensorData, TensorSpec } from '../src/tensor.js'
export type { ScriptOptions as ServeOptions, Server }

/**
 * Serves models from this process and worker processes of it, as `onecopy serve` does. The options are the keys of the config
 * file; what is not given comes from the environment (ONECOPY_...) and the defaults. No signal is listened to: close it.
 * @throws OnecopyError CONFIG_INVALID and why the server cannot start; nothing stays open then.
 */
export async function serve(options: ScriptOptions = {}): Promise<Server> {
  // A process that only attaches loads nothing of it.
  return await (await import('./serve.js')).Server.start(options)
}
