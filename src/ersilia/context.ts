/** What the routes of a bundle are given. */
import type { HttpContext } from '../http/context.js'
import type { ServedModel } from '../inference/service.js'
import type { ErsiliaService } from './service.js'

export interface ErsiliaContext {
  readonly http: HttpContext
  /** Open and proved. @throws OnecopyError why it cannot be opened. */
  readonly service: () => Promise<ErsiliaService>
  /** The model that answers for the bundle; undefined where run.sh does. */
  readonly model: () => ServedModel | undefined
}
