/** The package: a model that another process keeps, in this one; a server in this one; and what goes with them. */
export type { ErrorCode } from '../src/errors.js'
export { OnecopyError } from '../src/errors.js'
export { attach } from '../src/library/attach.js'
export type { AttachedModel, ModelEvents } from '../src/library/attached-model.js'
export type { AttachOptions, RunOptions } from '../src/library/options.js'
export type { Elements, InputValue, OutputValue } from '../src/library/tensors.js'
export type { Datatype, TensorData, TensorSpec } from '../src/tensor.js'
