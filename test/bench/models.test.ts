import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { inputTensors } from '../../bench/harness/requests.js'
import { parseRecipe, recipeName, SIZES } from '../../bench/models/recipes.js'
import { ensureModel } from '../../bench/models/store.js'
import { findSubject } from '../../bench/models/subject.js'
import { openSession, runSession } from '../../bench/variants/session.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'

const SMALL = [
  'mlp-2x16',
  'mlp-2x16-matmul',
  'int8-2x16',
  'convnet-2x4',
  'transformer-1x64',
  'lstm-2x8',
  'embedding-50x8',
  'trees-3x4',
  'tiny-16',
]

test('every kind of model is generated reproducibly from its name, and batched rows equal single rows', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const name of SMALL) {
    const recipe = parseRecipe(name)
    t.is(recipeName(recipe), name)
    const first = await ensureModel(recipe, join(folder, 'a'))
    const again = await ensureModel(recipe, join(folder, 'b'))
    t.is(first.sha256, again.sha256, name)
    t.true((await ensureModel(recipe, join(folder, 'a'))).isReused, name)
    const session = await openSession(first.path)
    const [input] = inputTensors(recipe, 1, 3)
    if (input === undefined) return t.fail('expected an input')
    const { output: together } = await runSession(session, { input })
    t.deepEqual(together?.shape, [3, 10], name)
    t.true(
      [...(together?.data ?? [])].every((value) => Number.isFinite(Number(value))),
      name,
    )
    const row = input.data.slice(0, input.data.length / 3) as typeof input.data
    const { output: alone } = await runSession(session, {
      input: { ...input, shape: [1, ...input.shape.slice(1)], data: row },
    })
    // Activations are quantized over all rows at once, which changes int8 results slightly.
    const tolerance = name.startsWith('int8') ? 0.2 : 1e-4
    for (const [i, value] of [...(alone?.data ?? [])].entries()) {
      t.true(Math.abs(Number(value) - Number(together?.data[i])) < tolerance, `${name} ${i}`)
    }
    await session.release()
  }
})

test('an invalid model name is rejected with the valid ones', async (t) => {
  for (const name of [
    'mlp-0x4',
    'mlp-4',
    'transformer-1x63',
    'convnet-1x1-matmul',
    'tree-1x1',
    'tiny-1x1',
    '',
  ]) {
    t.throws(() => parseRecipe(name), { message: /mlp-LAYERSxWIDTH.*trees-TREESxDEPTH.*200MB/ }, name)
  }
  await t.throwsAsync(findSubject('real/no-such-model'), { message: /no real model "no-such-model"/ })
  for (const [size, name] of Object.entries(SIZES)) t.is(recipeName(parseRecipe(size)), name)
})
