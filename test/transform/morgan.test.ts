import test, { type ExecutionContext } from 'ava'
import { MorganOptionsSchema } from '../../src/transform/morgan.js'
import { TransformRunner } from '../../src/transform/runner.js'
import { aromaticSheet } from './helpers.js'

const ASPIRIN = 'CC(=O)Oc1ccccc1C(=O)O'
/** Bits of phenol, computed by RDKit in Python; also in models/logp/README.md. */
const PHENOL_BITS = [256, 257, 264, 856, 857, 932, 1180, 1348, 1349, 1350, 1424]

async function openMorgan(
  t: ExecutionContext,
  options: Record<string, unknown> = {},
  itemTimeoutMs?: number,
): Promise<{ runner: TransformRunner; traps: string[] }> {
  const traps: string[] = []
  const runner = await TransformRunner.open({
    choice: { kind: 'morgan', options: MorganOptionsSchema.parse(options) },
    onTrapped: (reason) => traps.push(reason),
    ...(itemTimeoutMs === undefined ? {} : { itemTimeoutMs }),
  })
  t.teardown(() => runner.close())
  return { runner, traps }
}

function setBits(row: ArrayLike<number | bigint>): number[] {
  return Array.from(row).flatMap((value, bit) => (Number(value) === 1 ? [bit] : []))
}

test.serial('fingerprints of phenol equal those of RDKit in Python, with and without counts', async (t) => {
  const counted = await openMorgan(t, { radius: 1, counts: 'simulated' })
  const { rows } = await counted.runner.encode(['Oc1ccccc1'])
  t.deepEqual(setBits(rows[0] as Float32Array), PHENOL_BITS)
  const plain = await openMorgan(t, { radius: 1, datatype: 'INT64' })
  const { rows: bits } = await plain.runner.encode(['Oc1ccccc1'])
  t.true(bits[0] instanceof BigInt64Array)
  t.deepEqual(setBits(bits[0] as BigInt64Array), [745, 807, 1088, 1380, 1602, 1750, 1873])
})

test.serial('invalid molecules are rejected, and the rows of the others have no gaps', async (t) => {
  const { runner, traps } = await openMorgan(t)
  const items = [
    'CCO',
    '',
    'not a molecule',
    5,
    null,
    { input: 'C' },
    ['C'],
    'C'.repeat(501),
    'C1CC',
    ASPIRIN,
  ]
  const { accepted, rows } = await runner.encode(items)
  t.deepEqual([...accepted], [1, 0, 0, 0, 0, 0, 0, 0, 0, 1])
  const alone = await runner.encode([ASPIRIN])
  t.is(rows[0]?.length, 2 * 2048)
  t.deepEqual(rows[0]?.slice(2048), alone.rows[0])
  t.deepEqual(traps, [])
})

test.serial('a SMILES of 10 MB is rejected', async (t) => {
  const { runner } = await openMorgan(t)
  const { accepted } = await runner.encode(['C'.repeat(10 * 1024 * 1024), 'CCO'])
  t.deepEqual([...accepted], [0, 1])
})

test.serial(
  'molecules that crash RDKit are rejected, and later ones have correct fingerprints',
  async (t) => {
    const { runner, traps } = await openMorgan(t, { max_characters: 10_000 })
    const expected = await runner.encode([ASPIRIN])
    for (const trap of [
      'C'.repeat(5000),
      'c1ccccc1'.repeat(200),
      `${'C('.repeat(3000)}C${')'.repeat(3000)}`,
    ]) {
      const { accepted, rows } = await runner.encode(['CCO', trap, ASPIRIN])
      t.deepEqual([...accepted], [1, 0, 1], trap.slice(0, 20))
      t.deepEqual(rows[0]?.slice(2048), expected.rows[0])
    }
    t.is(traps.length, 3)
  },
)

test.serial('an item above its time limit costs the thread, not its chunk, and is not retried', async (t) => {
  const { runner, traps } = await openMorgan(t, { max_characters: 10_000 }, 100)
  const stuck = `${'c1ccccc1.'.repeat(1100)}C`
  const other = runner.encode(['CCO', stuck, ASPIRIN])
  const after = await runner.encode([ASPIRIN])
  t.deepEqual([...after.accepted], [1])
  const { accepted, rows } = await other
  t.deepEqual([...accepted], [1, 0, 1], traps.join())
  t.deepEqual(rows[0]?.slice(2048), after.rows[0])
  t.true(runner.replaced >= 1)
  t.regex(traps.join(), /did not finish within 100 ms/)
  const { replaced } = runner
  t.deepEqual([...(await runner.encode([stuck, 'CCO'])).accepted], [0, 1])
  t.is(runner.replaced, replaced)
})

test.serial('a molecule that breaks RDKit unnoticed does not affect the next one', async (t) => {
  const { runner } = await openMorgan(t, { max_characters: 10_000 })
  const expected = await runner.encode([ASPIRIN])
  // Which sheet has this effect, and on which molecule, depends on the previous memory of the module.
  const sizes = [
    [29, 27],
    [31, 27],
    [31, 29],
    [33, 29],
  ] as const
  const items = sizes.flatMap(([width, height]) => [aromaticSheet(width, height), ASPIRIN, ASPIRIN])
  const { accepted, rows } = await runner.encode(items)
  t.deepEqual(
    [...accepted],
    sizes.flatMap(() => [0, 1, 1]),
  )
  for (let row = 0; row < 2 * sizes.length; row++)
    t.deepEqual(rows[0]?.slice(row * 2048, (row + 1) * 2048), expected.rows[0])
})

test.serial('a closed runner rejects queued items', async (t) => {
  const { runner } = await openMorgan(t)
  const waiting = runner.encode(Array.from({ length: 1000 }, () => ASPIRIN))
  await runner.close()
  await t.throwsAsync(waiting, { code: 'SHUTTING_DOWN' })
  await t.throwsAsync(runner.encode(['C']), { code: 'SHUTTING_DOWN' })
})
