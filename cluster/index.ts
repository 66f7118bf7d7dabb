/**
 * The package: attaches to a model that another process holds, or runs a server in this process.
 */
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
 * Serves models from worker processes of this process, like `onecopy serve`. The options are the
 * keys of the config file; the environment (ONECOPY_...) and the defaults supply the rest. It
 * handles no signals: the caller closes it.
 * @throws OnecopyError CONFIG_INVALID, or the reason for a failed start; nothing stays open.
 */
export async function serve(options: ScriptOptions = {}): Promise<Server> {
  // A process that only attaches does not load the server.
  return await (await import('./serve.js')).Server.start(options)
}
