/**
 * The V2 routes of attached models, for an HTTP server that is not ours. Loaded when routes are mounted.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pino } from 'pino'
import { Keyring } from '../access/api-keys.js'
import { createApp } from '../http/app.js'
import { Connections } from '../http/connections.js'
import type { HttpContext } from '../http/context.js'
import { LargeExchanges } from '../http/large-exchanges.js'
import type { ModelDirectory, ServedModel } from '../inference/service.js'
import { ModelRecorder } from '../metrics/recorder.js'
import { MODEL_CELLS } from '../metrics/series.js'
import { readStatistics } from '../metrics/statistics.js'
import { configurationOf } from '../server/serving-policy.js'
import type { Mountable } from './mountable.js'
import type { RouteChoices } from './route-options.js'

export type Handler = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/** An attached model as a front end is given it: what it is can change from one request to the next. */
class MountedModel implements ServedModel {
  readonly counts: ModelRecorder
  /** Attached models take tensors. */
  readonly text = null
  readonly #cells = new Float64Array(MODEL_CELLS)
  readonly model: Mountable

  constructor(model: Mountable) {
    this.model = model
    this.counts = new ModelRecorder(this.#cells)
    model.onExecution((rows, times) => this.counts.countExecution(rows, times))
  }

  get name(): string {
    return this.model.describe().offer.name
  }

  get version(): string {
    return this.model.version
  }

  get inputs() {
    return this.model.inputs
  }

  get outputs() {
    return this.model.outputs
  }

  get segmentBytes(): number {
    return this.model.sharedBytes
  }

  get labels() {
    return this.model.describe().offer.config.labels
  }

  get configuration() {
    const { offer, header, threads, maxQueue: maxQueuedRequests } = this.model.describe()
    return configurationOf(offer, header, { threads, maxQueuedRequests })
  }

  statistics() {
    const cellOf = (cell: number) => this.#cells[cell] ?? 0
    return readStatistics({ total: cellOf, latest: cellOf })
  }

  /** A run keeps its generation by itself. */
  async use<T>(work: () => Promise<T>): Promise<T> {
    return await work()
  }
}

function directoryOf(mounted: readonly MountedModel[]): ModelDirectory {
  const open = () => mounted.filter(({ model }) => !model.isClosed)
  return {
    names: () => open().map(({ name }) => name),
    versions: (name) => open().flatMap((one) => (one.name === name ? [one.version] : [])),
    find: (name, version) =>
      open().find((one) => one.name === name && (version === undefined || one.version === version)) ?? null,
    outOfService: () => null,
  }
}

function contextOf(mounted: readonly MountedModel[], choices: RouteChoices): HttpContext {
  const log = pino({ level: 'silent' })
  return {
    models: directoryOf(mounted),
    submit: async ({ model, ...run }) => {
      const result = await (model as MountedModel).model.runTensors(run)
      model.counts.observe('queueDuration', result.queueNs / 1e9)
      model.counts.countComputed(result.times)
      return result
    },
    checkCapacity: (model, inputBytes) => (model as MountedModel).model.checkCapacity(inputBytes),
    unknownModel: new ModelRecorder(),
    connections: new Connections(),
    // Who may ask, and how often, is the app's.
    defences: {
      headers: {},
      corsOrigins: [],
      keyring: new Keyring({ keys: null }),
      limits: { rateLimit: null, maxClientRequests: 0, trustedProxies: 0 },
      clientCounts: null,
    },
    observation: { isAccessLogOn: false, isServerTimingOn: false, tracing: null, trustedProxies: 0 },
    log,
    localFolders: [],
    maxBodyBytes: choices.maxBodyBytes,
    maxResponseBytes: choices.maxResponseBytes,
    largeExchanges: new LargeExchanges(),
    regions: null,
    control: null,
    // The app decides who may call it, under which host name.
    hostPolicy: { host: '', allowedHosts: [] },
    routeHint: () => '',
    errorBodyOf: () => null,
    deadlineStatus: 504,
    hasDocs: false,
    hasBundle: false,
    isReady: () => mounted.every(({ model }) => !model.isClosed),
    isDraining: () => false,
    // It was answered with 500; whose process it is decides what a bug means.
    onBug: (thrown) => process.emitWarning(thrown instanceof Error ? thrown : String(thrown)),
  }
}

export function createHandler(models: readonly Mountable[], choices: RouteChoices): Handler {
  const mounted = models.map((model) => new MountedModel(model))
  const app = createApp(contextOf(mounted, choices), { name: 'onecopy', version: choices.packageVersion })
  return app.callback()
}
