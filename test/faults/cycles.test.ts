import test from 'ava'
import { cyclesChecks, runCycles } from '../../bench/cycles/cycles.js'
import { Stage } from '../../bench/harness/stage.js'
import { benchModel } from '../../bench/rows/row.js'

test.serial('repeated kills and starts accumulate no leftovers', async (t) => {
  const model = await benchModel('tiny-16')
  await using stage = new Stage()
  const result = await runCycles({ stage, model, workers: 2, cycles: 5 })
  for (const { claim, bar, got, isMet } of cyclesChecks(result))
    t.true(isMet, `${claim}: ${got} (bar: ${bar})`)
})
