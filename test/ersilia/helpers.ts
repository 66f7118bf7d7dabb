/** Bundles on disk based on the built-in one, and any number of molecules. */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

export const LOGP_BUNDLE = join(PROJECT_ROOT, 'models', 'logp')
export const LOGP_MODEL = join(LOGP_BUNDLE, '1', 'model.onnx')

export interface BundleChanges {
  /** Keys of serve.json to change; null for a bundle without one. */
  readonly manifest?: Record<string, unknown> | null
  readonly card?: Record<string, unknown>
  /** File contents by path relative to model/framework. */
  readonly files?: Record<string, string>
}

/** A bundle in the layout of eos-template with the logP model as its checkpoint. */
export function makeBundle(
  t: ExecutionContext,
  { manifest = {}, card = {}, files = {} }: BundleChanges = {},
): string {
  const root = temporaryFolder(t)
  const framework = join(root, 'model', 'framework')
  cpSync(join(LOGP_BUNDLE, 'model', 'framework'), framework, { recursive: true })
  mkdirSync(join(root, 'model', 'checkpoints'))
  cpSync(LOGP_MODEL, join(root, 'model', 'checkpoints', 'model.onnx'))
  const path = join(framework, 'serve.json')
  const original = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  const changed = { ...original, checkpoint: 'model/checkpoints/model.onnx', ...manifest }
  if (manifest === null) rmSync(path)
  else writeFileSync(path, JSON.stringify(changed))
  writeFileSync(
    join(root, 'metadata.json'),
    JSON.stringify({
      Identifier: 'eos9zzz',
      Slug: 'test-logp',
      Title: 'A bundle of the tests',
      Description: 'logP',
      Input: ['Compound'],
      Task: 'Annotation',
      'Output Type': ['Float'],
      'Output Consistency': 'Fixed',
      ...card,
    }),
  )
  for (const [name, text] of Object.entries(files)) writeFileSync(join(framework, name), text)
  return root
}

const CORES = ['c1ccc(X)cc1', 'c1ccnc(X)c1', 'C1CCN(X)CC1', 'c1cc(X)sc1', 'O=C(X)c1ccccc1', 'C1CCC(X)CC1']
const ENDS = ['C', 'N', 'O', 'F', 'Cl', 'Br', 'CC', 'C(=O)O', 'C#N', 'C(F)(F)F', 'OC', 'N(C)C', 'S(=O)(=O)C']

/** Distinct molecules, the same in every run. */
export function molecules(count: number): string[] {
  const made: string[] = []
  for (let length = 0; made.length < count; length++) {
    for (const core of CORES) {
      for (const first of ENDS) {
        for (const end of ENDS) made.push(core.replace('X', `${'C'.repeat(length)}C(${first})${end}`))
      }
    }
  }
  return made.slice(0, count)
}
