/** The context of a bundle's routes. */
import type { HttpContext } from '../http/context.js'
import type { ServedModel } from '../inference/service.js'
import type { ErsiliaService } from './service.js'

export interface ErsiliaContext {
  readonly http: HttpContext
  /**
   * The opened bundle, with examples checked. @throws OnecopyError with the reason why it cannot be opened.
   */
  readonly service: () => Promise<ErsiliaService>
  /** The model that serves the bundle; undefined if run.sh does. */
  readonly model: () => ServedModel | undefined
}
