/**
 * The bundles of the bench: one with a serve.json, and others whose run.sh starts a program for
 * each request.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { COMPILED_ROOT, PACKAGE_ROOT } from '../harness/paths.js'
import type { Stage } from '../harness/stage.js'
import { benchModel } from '../rows/row.js'

export const BUILT_IN = 'logp'

export interface Bundle {
  readonly name: string
  readonly root: string
}

export interface Bundles {
  readonly resident: Bundle
  readonly others: readonly Bundle[]
  readonly notes: readonly string[]
}

export const FINGERPRINT = { radius: 1, bits: 2048 }

/** Esters with growing chains: all molecules differ. */
export function molecules(count: number): string[] {
  return Array.from(
    { length: count },
    (_, i) => `CC(=O)Oc1ccc(C(=O)O${'C'.repeat(i % 40)})cc1${'C'.repeat(i / 40)}`,
  )
}

function writeBundle(folder: string, name: string, files: Record<string, string>): string {
  const root = join(folder, name)
  const framework = join(root, 'model', 'framework')
  mkdirSync(join(framework, 'columns'), { recursive: true })
  const card = { Identifier: `bench-${name}`, Slug: name, 'Output Type': ['Float'] }
  writeFileSync(join(root, 'metadata.json'), JSON.stringify(card))
  writeFileSync(
    join(framework, 'columns', 'run_columns.csv'),
    'name,type,direction,description\nvalue,float,high,x\n',
  )
  for (const [file, text] of Object.entries(files)) {
    writeFileSync(join(framework, file), text)
    if (file.endsWith('.sh')) chmodSync(join(framework, file), 0o755)
  }
  return root
}

export function hasChemistry(python: string): boolean {
  const imports = 'import numpy, onnxruntime, rdkit.Chem.rdFingerprintGenerator'
  return spawnSync(python, ['-c', imports], { stdio: 'ignore' }).status === 0
}

export async function makeBundles(stage: Stage, model: string, python: string): Promise<Bundles> {
  const folder = stage.folder(tmpdir(), 'onecopy-bench-ersilia-')
  const source =
    model === BUILT_IN
      ? join(PACKAGE_ROOT, 'models', 'logp', '1', 'model.onnx')
      : (await benchModel(model)).path
  const { bits, radius } = FINGERPRINT
  const featurizer = { kind: 'morgan', radius, bits, counts: 'simulated' }
  const manifest = { checkpoint: 'model.onnx', featurizer }
  const resident = writeBundle(folder, 'resident', { 'serve.json': JSON.stringify(manifest) })
  const checkpoint = join(resident, 'model.onnx')
  copyFileSync(source, checkpoint)
  const perRequest = (name: string, command: string): Bundle => ({
    name,
    root: writeBundle(folder, name.replaceAll(' ', '-'), {
      'run.sh': `#!/bin/bash\nexec ${command} "$2" "$3"\n`,
    }),
  })
  const inNode = join(COMPILED_ROOT, 'bench', 'variants', 'run-once.js')
  const inPython = join(PACKAGE_ROOT, 'bench', 'variants', 'run_once.py')
  const others = [
    perRequest(
      'node per request',
      `"${process.execPath}" "${inNode}" "${checkpoint}" ${bits} ${radius} simulated`,
    ),
  ]
  const isInstalled = hasChemistry(python)
  if (isInstalled)
    others.push(
      perRequest('python per request', `"${python}" "${inPython}" "${checkpoint}" ${bits} ${radius}`),
    )
  const notes = [
    'resident: the model loaded once, RDKit in a separate thread',
    'per request: the same server starts a process for each request, which imports RDKit and ONNX Runtime and loads the model',
    ...(isInstalled
      ? []
      : [`python per request: **skipped**, ${python} lacks rdkit, numpy or onnxruntime (--python)`]),
  ]
  return { resident: { name: 'resident', root: resident }, others, notes }
}
