/** Overlays as a cluster would be given them: built by kustomize, which kubectl holds too. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import type { ExecutionContext } from 'ava'
import { parseAllDocuments } from 'yaml'
import { temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import type { Manifest } from './schemas.js'

export const KUBERNETES = join(PROJECT_ROOT, 'deploy', 'kubernetes')

const TOOLS: readonly (readonly string[])[] = [
  ['kustomize', 'build'],
  ['kubectl', 'kustomize'],
]

function works([program = '', ...args]: readonly string[]): boolean {
  return spawnSync(program, [...args, '--help'], { stdio: 'ignore' }).status === 0
}

const tool = TOOLS.find(works)
/** Why nothing can be built here; null where it can. */
export const CANNOT_BUILD = tool === undefined ? 'neither kustomize nor kubectl is here' : null

export function readManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    const [error] = document.errors
    if (error !== undefined) throw error
    return document.toJS() as Manifest
  })
}

/** By folder: the tool takes half a second each time. */
const built = new Map<string, string>()

export function build(folder: string): Manifest[] {
  const [program = '', ...args] = tool ?? []
  const text =
    built.get(folder) ?? execFileSync(program, [...args, folder], { encoding: 'utf8', stdio: 'pipe' })
  built.set(folder, text)
  return readManifests(text)
}

/** The base with these components, as an overlay of one's own would have it. */
export function buildWith(t: ExecutionContext, components: readonly string[]): Manifest[] {
  const folder = join(temporaryFolder(t), 'overlay')
  mkdirSync(folder)
  const kustomization = {
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    resources: [relative(folder, join(KUBERNETES, 'base'))],
    components: components.map((name) => relative(folder, join(KUBERNETES, 'components', name))),
  }
  writeFileSync(join(folder, 'kustomization.yaml'), JSON.stringify(kustomization))
  return build(folder)
}
