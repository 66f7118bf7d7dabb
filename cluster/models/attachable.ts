/** The served models that other processes of the same user may attach to. */
import { OnecopyError, outOfServiceError } from '../../src/errors.js'
import { type Attachable, OwnerServer } from '../../src/library/owner-server.js'
import type { Log } from '../../src/log.js'
import type { InitialModels } from './bundles.js'
import type { Catalogue } from './catalogue.js'

/** Alternative names of a model, from its bundle or from `onecopy load`. */
export interface Aliases {
  readonly names: readonly string[]
  readonly modelName: string | null
}

export function realName(name: string, { names, modelName }: Aliases): string {
  return modelName !== null && names.includes(name) ? modelName : name
}

export function unknownModel(name: string, version: string | null): OnecopyError {
  const which = version === null ? '' : ` version ${version}`
  return new OnecopyError('MODEL_NOT_FOUND', `no model ${JSON.stringify(name)}${which} is in memory here`)
}

/**
 * Returns the requested version, or the newest version in service if none is requested.
 * @throws OnecopyError MODEL_NOT_FOUND, MODEL_OUT_OF_SERVICE, MODEL_DISABLED.
 */
export function findAttachable(
  { name, version }: { readonly name: string; readonly version: string | null },
  { catalogue, threads }: { readonly catalogue: Catalogue; readonly threads: number },
): Attachable {
  const all = catalogue.servingAs(name)
  const matching = all.filter(({ generation }) => version === null || generation.source.version === version)
  const [first] = matching
  if (first === undefined) throw unknownModel(name, version)
  const { generation, out } = matching.find((one) => one.out === null) ?? first
  if (out !== null) throw outOfServiceError(generation.source, out)
  const { facts, segment } = generation
  return {
    ...{ generation: facts.key, name: facts.name, version: facts.version, config: facts.config, threads },
    reference: () => segment.reference,
    lease: () => segment.lease(),
  }
}

/** Offers the segments to other processes of this user. Resolves with null if it cannot listen. */
export async function startOwner(options: {
  readonly serverFolder: string
  readonly initial: InitialModels
  readonly catalogue: Catalogue
  readonly threads: number
  readonly log: Log
}): Promise<OwnerServer | null> {
  const { serverFolder, initial, log } = options
  const { names, mounted, sources } = initial
  const aliases = { names, modelName: mounted?.modelName ?? sources[0]?.name ?? null }
  return await OwnerServer.start({
    ...{ serverFolder, log },
    find: (name, version) => findAttachable({ name: realName(name, aliases), version }, options),
  })
}
