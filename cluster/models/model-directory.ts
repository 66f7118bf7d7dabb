/**
 * Models on the admin port: metadata, configuration, readiness and statistics, without a worker.
 */
import type { Config } from '../../src/config/config.js'
import type { ModelDirectory } from '../../src/inference/service.js'
import type { StatsPage } from '../../src/metrics/page.js'
import { ModelRecorder } from '../../src/metrics/recorder.js'
import { MODEL_CELLS } from '../../src/metrics/series.js'
import { LoadedModel, ServedModels } from '../../src/server/served-models.js'
import { configurationOf } from '../../src/server/serving-policy.js'
import type { FleetStats } from '../workers/stats.js'
import type { Catalogue } from './catalogue.js'
import type { Generation } from './generation.js'

export interface ModelDirectoryOptions {
  readonly catalogue: () => Catalogue | undefined
  readonly stats: () => FleetStats | undefined
  /** Workers that answer. */
  readonly readyWorkers: () => number
  readonly config: Pick<Config, 'threads' | 'maxQueuedRequests'>
}

/** A placeholder: the admin port runs no inference, so nothing is counted. */
const UNCOUNTED = new ModelRecorder(new Float64Array(MODEL_CELLS))

function describe(
  { source, segment, facts }: Generation,
  page: StatsPage,
  config: ModelDirectoryOptions['config'],
): LoadedModel {
  const { header } = segment.published.segment
  const { inputs, outputs, divisions } = header
  return new LoadedModel({
    ...{ key: facts.key, number: facts.number, name: source.name, version: source.version },
    ...{ inputs, outputs, divisions, counts: UNCOUNTED, statsPage: page, labels: source.config.labels },
    segmentBytes: segment.reference.fileBytes,
    // The primary opens no tokenizer.
    text: null,
    configuration: configurationOf(source, header, config),
  })
}

/** Reads the current state on every call, because the served models change. */
export function modelDirectory(options: ModelDirectoryOptions): ModelDirectory {
  const now = (): ServedModels => {
    const models = new ServedModels()
    const catalogue = options.catalogue()
    for (const generation of catalogue?.serving ?? []) {
      const page = options.stats()?.pageOf(generation.facts.number)
      if (page !== undefined) models.activate(describe(generation, page, options.config))
    }
    for (const { name, version, state, workers } of catalogue?.outOfService ?? [])
      if (workers >= options.readyWorkers()) models.takeOut({ name, version, state, counts: UNCOUNTED })
    return models
  }
  return {
    names: () => now().names(),
    versions: (name) => now().versions(name),
    find: (name, version) => now().find(name, version),
    outOfService: (name, version) => now().outOfService(name, version),
  }
}
