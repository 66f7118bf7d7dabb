/**
 * The model versions of a serving process. A version can have two generations: the active one, and
 * its successor, which is loaded but gets no requests yet. The switch is atomic. A request uses the
 * generation that was active when its body was complete.
 *
 * A version can be out of service, loaded or not: its requests are rejected with the reason, and
 * other versions are not affected.
 */
import type { OutOfService } from '../errors.js'
import type { ModelDirectory, ServedModel, VersionOutOfService } from '../inference/service.js'
import { UserCount } from '../inference/user-count.js'
import type { StatsPage } from '../metrics/page.js'
import type { ModelRecorder } from '../metrics/recorder.js'
import { type ModelStatistics, readStatistics } from '../metrics/statistics.js'
import type { ModelConfiguration } from '../protocol/v2/configuration.js'
import { compareVersions } from '../repository/repository.js'
import type { Division } from '../segment/layout.js'
import type { TensorSpec } from '../tensor.js'

export interface LoadedModelOptions {
  readonly key: string
  readonly number: number
  readonly name: string
  readonly version: string
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  /** Integer divisions for which its requests are checked. */
  readonly divisions: readonly Division[]
  readonly counts: ModelRecorder
  /** The page in which all processes count requests of the model version. */
  readonly statsPage: StatsPage
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  readonly labels: ServedModel['labels']
  readonly text: ServedModel['text']
}

/** One generation of a model version. */
export class LoadedModel implements ServedModel {
  /** Identifies the generation in this process. */
  readonly key: string
  /** Identifies the model version in the stats pages. */
  readonly number: number
  readonly name: string
  readonly version: string
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  readonly divisions: readonly Division[]
  readonly counts: ModelRecorder
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  readonly labels: ServedModel['labels']
  readonly text: ServedModel['text']
  readonly #statsPage: StatsPage
  readonly #users = new UserCount()

  constructor(options: LoadedModelOptions) {
    this.key = options.key
    this.number = options.number
    this.name = options.name
    this.version = options.version
    this.inputs = options.inputs
    this.outputs = options.outputs
    this.divisions = options.divisions
    this.counts = options.counts
    this.segmentBytes = options.segmentBytes
    this.configuration = options.configuration
    this.labels = options.labels
    this.text = options.text
    this.#statsPage = options.statsPage
  }

  statistics(): ModelStatistics {
    return readStatistics(this.#statsPage)
  }

  use<T>(work: () => Promise<T>): Promise<T> {
    return this.#users.during(work)
  }

  /** Resolves when no request uses it. Call it only after new requests are prevented. */
  unused(): Promise<void> {
    return this.#users.unused()
  }
}

export class ServedModels implements ModelDirectory {
  /** Active generations, by name, newest version first. */
  readonly #byName = new Map<string, LoadedModel[]>()
  /** All loaded generations. */
  readonly #byKey = new Map<string, LoadedModel>()
  /** By name, newest version first. */
  readonly #outOfService = new Map<string, VersionOutOfService[]>()

  /** Adds a generation that is not active yet. */
  add(model: LoadedModel): void {
    this.#byKey.set(model.key, model)
  }

  /** Makes it active, in place of another generation of the same version. */
  activate(model: LoadedModel): void {
    const others = this.#answering(model.name).filter(({ version }) => version !== model.version)
    this.#set(
      model.name,
      [...others, model].sort((a, b) => compareVersions(a.version, b.version)),
    )
  }

  /** It gets no new requests. */
  deactivate(model: LoadedModel): void {
    this.#set(
      model.name,
      this.#answering(model.name).filter((one) => one !== model),
    )
  }

  remove(model: LoadedModel): void {
    this.#byKey.delete(model.key)
  }

  /**
   * Takes a version out of service, with all current and later generations, until it is put back.
   */
  takeOut(version: VersionOutOfService): void {
    this.#setOut(version.name, [...this.#othersOut(version), version])
  }

  putBack(version: { readonly name: string; readonly version: string }): void {
    this.#setOut(version.name, this.#othersOut(version))
  }

  #othersOut({ name, version }: { readonly name: string; readonly version: string }): VersionOutOfService[] {
    return (this.#outOfService.get(name) ?? []).filter((one) => one.version !== version)
  }

  #setOut(name: string, versions: VersionOutOfService[]): void {
    if (versions.length === 0) this.#outOfService.delete(name)
    else
      this.#outOfService.set(
        name,
        versions.sort((a, b) => compareVersions(a.version, b.version)),
      )
  }

  #answering(name: string): readonly LoadedModel[] {
    return this.#byName.get(name) ?? []
  }

  #set(name: string, models: LoadedModel[]): void {
    if (models.length === 0) this.#byName.delete(name)
    else this.#byName.set(name, models)
  }

  names(): string[] {
    return [...new Set([...this.#byName.keys(), ...this.#outOfService.keys()])].sort()
  }

  versions(name: string): string[] {
    return this.#answering(name).map((model) => model.version)
  }

  /** All loaded generations of a version. */
  generations({ name, version }: { readonly name: string; readonly version: string }): LoadedModel[] {
    return [...this.#byKey.values()].filter((one) => one.name === name && one.version === version)
  }

  byKey(key: string): LoadedModel | undefined {
    return this.#byKey.get(key)
  }

  find(name: string, version?: string): LoadedModel | null {
    const models = this.#answering(name)
    const model =
      version === undefined
        ? (models.find((one) => this.#stateOf(one) === null) ?? models[0])
        : models.find((one) => one.version === version)
    return model ?? null
  }

  outOfService(name: string, version?: string): VersionOutOfService | null {
    if (this.#outOfService.size === 0) return null
    const out = this.#outOfService.get(name) ?? []
    if (version !== undefined) return out.find((one) => one.version === version) ?? null
    const isAnyInService = this.#answering(name).some((model) => this.#stateOf(model) === null)
    return isAnyInService ? null : (out[0] ?? null)
  }

  #stateOf({ name, version }: LoadedModel): OutOfService | null {
    if (this.#outOfService.size === 0) return null
    return this.#outOfService.get(name)?.find((one) => one.version === version)?.state ?? null
  }

  /** Whether any model is in service. Without any model, whether none is required. */
  isServing(isModelRequired: boolean): boolean {
    const names = this.names()
    return names.length === 0 ? !isModelRequired : names.some((name) => this.outOfService(name) === null)
  }
}
