/**
 * The model versions of a serving process. A version can be there twice, as two generations: the one that answers and
 * its successor, which is loaded but not yet asked. Which of the two answers changes in one step, and a
 * request stays with the one that it found when its body was there to its end.
 *
 * A version can be out of service, loaded or not: its requests are refused with the reason, and the others go on.
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
  /** Integer divisions by which its requests are checked. */
  readonly divisions: readonly Division[]
  readonly counts: ModelRecorder
  /** Where all processes count the model version. */
  readonly statsPage: StatsPage
  readonly segmentBytes: number
  readonly configuration: ModelConfiguration
  readonly labels: ServedModel['labels']
  readonly text: ServedModel['text']
}

/** One generation of a model version. */
export class LoadedModel implements ServedModel {
  /** Names the generation in this process. */
  readonly key: string
  /** Names the model version in the stats pages. */
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

  /** Resolves when no request is with it; to be asked for once no new one can come. */
  unused(): Promise<void> {
    return this.#users.unused()
  }
}

export class ServedModels implements ModelDirectory {
  /** Those that answer, by name, newest version first. */
  readonly #byName = new Map<string, LoadedModel[]>()
  /** All that are loaded. */
  readonly #byKey = new Map<string, LoadedModel>()
  /** By name, newest version first. */
  readonly #outOfService = new Map<string, VersionOutOfService[]>()

  /** Takes in a generation that does not answer yet. */
  add(model: LoadedModel): void {
    this.#byKey.set(model.key, model)
  }

  /** From here on it answers, in place of another generation of the same version. */
  activate(model: LoadedModel): void {
    const others = this.#answering(model.name).filter(({ version }) => version !== model.version)
    this.#set(
      model.name,
      [...others, model].sort((a, b) => compareVersions(a.version, b.version)),
    )
  }

  /** From here on it answers nothing new. */
  deactivate(model: LoadedModel): void {
    this.#set(
      model.name,
      this.#answering(model.name).filter((one) => one !== model),
    )
  }

  remove(model: LoadedModel): void {
    this.#byKey.delete(model.key)
  }

  /** Takes a version out of service, whatever generation of it is loaded or will be, until it is put back. */
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

  /** Every generation of a version that is loaded. */
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
    const out = this.#outOfService.get(name) ?? []
    if (version !== undefined) return out.find((one) => one.version === version) ?? null
    const isAnyInService = this.#answering(name).some((model) => this.#stateOf(model) === null)
    return isAnyInService ? null : (out[0] ?? null)
  }

  #stateOf({ name, version }: LoadedModel): OutOfService | null {
    return this.#outOfService.get(name)?.find((one) => one.version === version)?.state ?? null
  }

  /** Whether any model is in service; where there is none at all, whether none needs to be. */
  isServing(isModelRequired: boolean): boolean {
    const names = this.names()
    return names.length === 0 ? !isModelRequired : names.some((name) => this.outOfService(name) === null)
  }
}
