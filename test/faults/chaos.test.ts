import test from 'ava'
import { chaosChecks } from '../../bench/chaos/checks.js'
import { FAULTS } from '../../bench/chaos/faults.js'
import { runChaos } from '../../bench/chaos/run.js'
import { Stage } from '../../bench/harness/stage.js'
import { benchModel } from '../../bench/rows/row.js'

test.serial('kills under load lose only the requests of the killed processes', async (t) => {
  const model = await benchModel('mlp-6x512')
  await using stage = new Stage()
  const result = await runChaos({
    ...{ stage, model, workers: 2, seconds: 30, everyMs: 1500, pauseMs: 1, seed: 'test', faults: FAULTS },
    onFault: (note) => t.log(note),
  })
  for (const { claim, bar, got, isMet } of chaosChecks(result))
    t.true(isMet, `${claim}: ${got} (bar: ${bar})`)
})
