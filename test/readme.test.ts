import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { ACCESS_OPTIONS, REQUEST_LOG_OPTIONS } from '../src/config/defence-options.js'
import { dashed } from '../src/config/load.js'
import { CONFIGURATION_PAGE, configurationPage } from './helpers/configuration-page.js'
import { startServer, stopCleanly } from './helpers/server.js'
import { PROJECT_ROOT } from './helpers/shared.js'

test('docs/configuration.md is what npm run docs writes', (t) => {
  t.is(readFileSync(CONFIGURATION_PAGE, 'utf8'), configurationPage())
})

test('the README is at most 150 lines, its prose wraps at 100 columns, and its links lead somewhere', (t) => {
  const lines = readFileSync(join(PROJECT_ROOT, 'README.md'), 'utf8').trimEnd().split('\n')
  t.true(lines.length <= 150, `${lines.length} lines`)
  // A table row, a printed answer and a picture stay on one line.
  const prose = lines.filter((line) => !/^[|{!]/.test(line))
  t.deepEqual(
    prose.filter((line) => line.length > 100),
    [],
  )
  const links = [...lines.join('\n').matchAll(/\]\(([^)#]+)[^)]*\)/g)].map((match) => match[1] as string)
  for (const link of links.filter((one) => !one.startsWith('http')))
    t.true(existsSync(join(PROJECT_ROOT, link)), link)
})

test('the pages on security and observability name every option of theirs', (t) => {
  for (const [page, options] of [
    ['security.md', ACCESS_OPTIONS],
    ['observability.md', REQUEST_LOG_OPTIONS],
  ] as const) {
    const text = readFileSync(join(PROJECT_ROOT, 'docs', page), 'utf8')
    for (const name of Object.keys(options)) t.true(text.includes(`--${dashed(name)}`), `${page}: ${name}`)
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
