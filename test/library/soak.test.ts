import test from 'ava'
import { PARTS, soak } from '../../bench/attach-soak.js'

/** The long version is `npm run bench -- attach-soak`. */
const SHORT = { cycles: 6, runners: 6, owners: 3, every: 2, model: 'mlp-6x512' }

for (const part of Object.keys(PARTS) as (keyof typeof PARTS)[])
  test.serial(`attached processes leave nothing behind: ${part}`, async (t) => {
    const { checks } = await soak(part, SHORT)
    for (const { claim, bar, got, isMet } of checks) t.true(isMet, `${claim}: ${got} (bar: ${bar})`)
  })
