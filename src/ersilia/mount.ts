/** A bundle in a serving process: its routes exist from the start, its service is opened on demand. */
import type Router from '@koa/router'
import { OnecopyError, outOfServiceError } from '../errors.js'
import type { HttpContext } from '../http/context.js'
import type { ServedModel, VersionOutOfService } from '../inference/service.js'
import type { Log } from '../log.js'
import { pathlessDetail } from './error-detail.js'
import type { MountedBundle } from './mounted.js'
import type { RunModel } from './native-predictor.js'
import { ersiliaRoutes } from './routes.js'
import type { ErsiliaService } from './service.js'
import { WorkerNotes } from './workers.js'

export interface OpenMountOptions {
  readonly http: HttpContext
  /** Runs the model without the queue and without counting the request. */
  readonly runUncounted: (model: ServedModel) => RunModel
  readonly serverFolder: string
  readonly redisUrl: string
  readonly maxQueuedRequests: number
  readonly log: Log
}

export class BundleMount {
  readonly #mounted: MountedBundle
  #options: OpenMountOptions | undefined
  #opening: Promise<ErsiliaService> | undefined
  #workers: WorkerNotes | undefined

  constructor(mounted: MountedBundle) {
    this.#mounted = mounted
  }

  addRoutes(router: Router, http: HttpContext): void {
    ersiliaRoutes(router, {
      http,
      model: () => this.#model(http) ?? undefined,
      service: () => this.#openOnce(),
    })
  }

  /** Of an error that no route has answered; undefined where it is not the bundle's to say. */
  errorBodyOf(path: string, error: OnecopyError): unknown {
    return pathlessDetail(path, error, this.#mounted) ?? undefined
  }

  #model(http: HttpContext): ServedModel | null {
    const { modelName } = this.#mounted
    return modelName === null ? null : http.models.find(modelName)
  }

  #outOfService(http: HttpContext): VersionOutOfService | null {
    const { modelName } = this.#mounted
    return modelName === null ? null : http.models.outOfService(modelName)
  }

  #requireInService(http: HttpContext): void {
    const out = this.#outOfService(http)
    if (out !== null) throw outOfServiceError(out, out.state)
  }

  #runThroughQueue(http: HttpContext): RunModel {
    return async (inputs, outputNames, isCancelled) => {
      this.#requireInService(http)
      const model = this.#model(http)
      if (model === null) throw notReady(`model ${this.#mounted.modelName} is not loaded`)
      const { outputs } = await model.use(() =>
        http.submit({ model, inputs, outputNames, priority: 0, timeoutMs: null, isCancelled }),
      )
      return outputs
    }
  }

  /**
   * Opens and checks an explicitly configured bundle. A bundle found in the repository is opened by its first
   * request, because a featurizer takes more memory than a small model and may never be needed. The same
   * applies while its model is out of service: requests are rejected until the model is back.
   * @throws OnecopyError of ErsiliaService.open.
   */
  async open(options: OpenMountOptions): Promise<void> {
    this.#options = options
    this.#workers = await WorkerNotes.open(options.serverFolder)
    const isInService = this.#outOfService(options.http) === null
    if (this.#mounted.isRequired && isInService) await this.#openOnce()
  }

  /** @throws OnecopyError MODEL_NOT_READY before `open` was called, and of ErsiliaService.open. */
  #openOnce(): Promise<ErsiliaService> {
    this.#opening ??= this.#open().catch((thrown) => {
      // The next request tries again.
      this.#opening = undefined
      throw thrown
    })
    return this.#opening
  }

  async #open(): Promise<ErsiliaService> {
    if (this.#options === undefined || this.#workers === undefined) throw notReady('the server is starting')
    const { http, runUncounted, ...options } = this.#options
    this.#requireInService(http)
    const model = this.#model(http) ?? undefined
    // Loaded lazily, so that processes without a bundle do not load its dependencies.
    const { ErsiliaService } = await import('./service.js')
    return await ErsiliaService.open({
      ...options,
      bundlePath: this.#mounted.path,
      model,
      workers: this.#workers,
      run: this.#runThroughQueue(http),
      runUncounted: model === undefined ? this.#runThroughQueue(http) : runUncounted(model),
    })
  }

  async close(): Promise<void> {
    const service = await this.#opening?.catch(() => undefined)
    await service?.close()
  }
}

function notReady(message: string): OnecopyError {
  return new OnecopyError('MODEL_NOT_READY', message, { retryAfterSeconds: 1 })
}
