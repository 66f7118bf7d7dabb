import test from 'ava'
import { stopCleanly } from '../helpers/server.js'
import { serveWide, WIDE_INPUTS, wideRow } from './owner.js'
import { Runner } from './runner.js'

const LIMIT_BYTES = 40_000_000
const RUNS = 100

async function privateBytes(runner: Runner): Promise<number> {
  for (let run = 0; run < RUNS; run++) await runner.run(wideRow(run), [1, WIDE_INPUTS])
  return await runner.close()
}

test.serial('an attached process holds at most 40 MB more than the same one without a model', async (t) => {
  const { server } = await serveWide(t)
  const [bare, other, attached] = [new Runner(t), new Runner(t), new Runner(t)]
  // Two, because pages that only one process maps count as private.
  for (const runner of [other, attached]) await runner.attach('wide', { segmentDir: server.segmentDir })
  // Without a model, a run is answered with no output.
  const above = (await privateBytes(attached)) - (await privateBytes(bare))
  t.true(above <= LIMIT_BYTES, `${Math.round(above / 1e6)} MB`)
  t.log(`${Math.round(above / 1e6)} MB above a process without a model`)
  await other.close()
  await stopCleanly(t, server)
})
