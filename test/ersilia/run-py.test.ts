import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { PYTHON_PATH } from '../library/python-environment.js'
import { LOGP_MODEL, makeBundle, molecules } from './helpers.js'
import { load } from './resident.js'

const EXAMPLE = join(PROJECT_ROOT, 'docs', 'examples', 'ersilia-run.py')
const NONSENSE = 'not a molecule'

function importsWith(python: string): boolean {
  return spawnSync(python, ['-c', 'import numpy, rdkit.Chem.rdFingerprintGenerator']).status === 0
}

/** A Python with RDKit; null if none is installed. */
const python = ['python3', '/usr/bin/python3'].find(importsWith) ?? null
const testWithRdkit = python === null ? test.skip : test.serial
const why =
  python === null ? ' (skipped: no Python with rdkit and numpy, such as python3-rdkit of Debian)' : ''

/** A bundle without serve.json: its Python program sends requests to the model named logp. */
function pythonBundle(t: ExecutionContext): string {
  const runScript = `exec "${python}" "$1/code/main.py" "$2" "$3"\n`
  const bundle = makeBundle(t, { manifest: null, files: { 'run.sh': runScript } })
  const code = join(bundle, 'model', 'framework', 'code')
  mkdirSync(code)
  writeFileSync(join(code, 'main.py'), readFileSync(EXAMPLE))
  return bundle
}

testWithRdkit(`a bundle that featurizes in Python uses the resident model${why}`, async (t) => {
  const resident = await load(t, [LOGP_MODEL, '--name', 'logp'])
  const bundle = pythonBundle(t)
  const framework = join(bundle, 'model', 'framework')
  const smiles = [...molecules(500), NONSENSE]
  const input = join(temporaryFolder(t), 'input.csv')
  const output = join(temporaryFolder(t), 'output.csv')
  writeFileSync(input, `input\n${smiles.join('\n')}\n`)
  const env = { PYTHONPATH: PYTHON_PATH, ONECOPY_SEGMENT_DIR: resident.segmentDir }
  const runSh = () =>
    spawnSync('bash', [join(framework, 'run.sh'), framework, input, output], {
      env: { ...process.env, ...env },
      encoding: 'utf8',
    })
  const { status, stderr } = runSh()
  t.is(status, 0, stderr)
  const rows = readFileSync(output, 'utf8').trimEnd().split(/\r?\n/)
  t.is(rows.length, smiles.length + 1)
  t.deepEqual([rows[0], rows.at(-1)], ['logp', '""'])

  // The same rows as with the featurizer of serve.json, and through a server of this bundle.
  const { server: native, url: nativeUrl } = await startServer(t, { args: ['--workers', '1'] })
  const expected = await valuesOf(nativeUrl, smiles)
  await stopCleanly(t, native)
  const { server, url } = await startServer(t, {
    args: ['--bundle', bundle, '--workers', '1'],
    env: { PYTHONPATH: PYTHON_PATH, ONECOPY_SEGMENT_DIR: resident.segmentDir },
  })
  const served = await valuesOf(url, smiles)
  for (const [i, value] of expected.entries()) {
    if (value === null) t.is(served[i], null)
    else {
      t.true(Math.abs(Number(rows[i + 1]) - value) < 1e-4, smiles[i])
      t.true(Math.abs((served[i] as number) - value) < 1e-4, smiles[i])
    }
  }
  await stopCleanly(t, server)

  t.is(await resident.stop(), 0)
  const refused = runSh()
  t.is(refused.status, 1)
  t.regex(refused.stderr, /MODEL_NOT_RESIDENT: .*start onecopy load MODEL\.onnx --name logp/)
})

async function valuesOf(url: string, smiles: readonly string[]): Promise<(number | null)[]> {
  const response = await fetch(`${url}/run?orient=values`, { method: 'POST', body: JSON.stringify(smiles) })
  return ((await response.json()) as (number | null)[][]).map(([value = null]) => value)
}
