/** What middleware and routes know of one request: `ctx.state`. */
import type { Context } from 'koa'
import type { OnecopyError } from '../errors.js'
import type { ServedModel } from '../inference/service.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import type { RequestTimings } from './observe/timings.js'

/** Where a request is counted: by the model version that it turned out to be about. */
export function recordersOf(
  { state }: Pick<Context, 'state'>,
  { unknownModel }: { readonly unknownModel: ModelRecorder },
) {
  return { recorder: () => (state as RequestState).model?.counts, unknown: unknownModel }
}

export interface RequestState {
  requestId: string
  /** The model version that a request turned out to be about. */
  model?: Pick<ServedModel, 'name' | 'version' | 'counts'>
  errorCode?: string
  /** Memory that the request and its answer took outside the heap, as far as it is large. */
  heldBytes?: number
  /** Name of the API key that the request came with. */
  keyName?: string
  /** Only where somebody wants to know. */
  timings?: RequestTimings
  /** The body of an error, where a route's clients expect another than `{"error": ...}`. */
  errorBody?: (error: OnecopyError) => unknown
}
