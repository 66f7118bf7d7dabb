import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ACCESS_OPTIONS, REQUEST_LOG_OPTIONS } from '../src/config/defence-options.js'
import { startServer, stopCleanly } from './helpers/server.js'
import { PROJECT_ROOT } from './helpers/shared.js'

test("the README's tables name every option of access and of what is told about a request", (t) => {
  const readme = readFileSync(join(PROJECT_ROOT, 'README.md'), 'utf8')
  const rows = readme.split('\n').filter((line) => line.startsWith('| `--'))
  for (const name of Object.keys({ ...ACCESS_OPTIONS, ...REQUEST_LOG_OPTIONS })) {
    const flag = name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
    t.true(
      rows.some((row) => row.split('|')[1]?.includes(`\`--${flag}`)),
      flag,
    )
  }
})

test("the README's curl answers with the numbers that the README prints", async (t) => {
  const readme = readFileSync(join(PROJECT_ROOT, 'README.md'), 'utf8')
  const [, path = '', route = ''] =
    readme.match(/^curl .*-d @(\S+) +localhost:8080(\S+)$/m) ?? t.fail('expected a curl in the README') ?? []
  const printed = JSON.parse(readme.match(/^\{"model_name".*\}$/m)?.[0] ?? 'null')
  const { server, url } = await startServer(t, { args: ['--workers', '2'] })
  const response = await fetch(`${url}${route}`, {
    method: 'POST',
    body: readFileSync(join(PROJECT_ROOT, path)),
  })
  t.is(response.status, 200)
  const got = (await response.json()) as { outputs: { data: number[] }[] }
  const rounded = (data: number[]) => data.map((number) => number.toFixed(4))
  // The CPU decides the last bits of a float32; four decimals are the same everywhere.
  t.deepEqual(rounded(got.outputs[0]?.data ?? []), rounded(printed.outputs[0].data))
  t.deepEqual(
    { ...got, outputs: [{ ...got.outputs[0], data: [] }] },
    { ...printed, outputs: [{ ...printed.outputs[0], data: [] }] },
  )
  await stopCleanly(t, server)
})
