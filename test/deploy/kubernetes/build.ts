/** Builds overlays with kustomize, which kubectl also contains. */
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
/** Why overlays cannot be built; null if they can. */
export const CANNOT_BUILD = tool === undefined ? 'neither kustomize nor kubectl is installed' : null

export function readManifests(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => {
    const [error] = document.errors
    if (error !== undefined) throw error
    return document.toJS() as Manifest
  })
}

/** Cache by folder, because each build takes half a second. */
const built = new Map<string, string>()

export function build(folder: string): Manifest[] {
  const [program = '', ...args] = tool ?? []
  const text =
    built.get(folder) ?? execFileSync(program, [...args, folder], { encoding: 'utf8', stdio: 'pipe' })
  built.set(folder, text)
  return readManifests(text)
}

/** Builds the base with the given components, like a user's overlay. */
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
