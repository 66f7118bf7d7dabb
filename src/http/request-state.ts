/** State of a request that middleware and routes share: `ctx.state`. */
import type { Context } from 'koa'
import type { OnecopyError } from '../errors.js'
import type { ServedModel } from '../inference/service.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import type { RequestTimings } from './observe/timings.js'

/** Where a request is counted: by the model version that answers it. */
export function recordersOf(
  { state }: Pick<Context, 'state'>,
  { unknownModel }: { readonly unknownModel: ModelRecorder },
) {
  return { recorder: () => (state as RequestState).model?.counts, unknown: unknownModel }
}

export interface RequestState {
  requestId: string
  /** The model version of the request, once known. */
  model?: Pick<ServedModel, 'name' | 'version' | 'counts'>
  errorCode?: string
  /** Memory of the request and its response outside the heap, if large. */
  heldBytes?: number
  /** Name of the API key in the request. */
  keyName?: string
  /** Set only if observability is enabled. */
  timings?: RequestTimings
  /** The body of an error, if clients of the route expect a form other than `{"error": ...}`. */
  errorBody?: (error: OnecopyError) => unknown
}
