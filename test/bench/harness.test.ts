import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { defineBench } from '../../bench/harness/bench.js'
import { leadCell } from '../../bench/harness/lead.js'
import { countOption, namesOption, risingOption, UsageError } from '../../bench/harness/options.js'
import { peerVariants } from '../../bench/harness/peers.js'
import { drawChart } from '../../bench/harness/svg.js'
import { allVariants, chooseVariants, variantNames, variantsOption } from '../../bench/harness/variants.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

interface Seen {
  readonly values: unknown
  readonly chosen: readonly string[]
}

function benchThatTells() {
  const seen: Seen[] = []
  const bench = defineBench({
    name: 'sample',
    summary: 'Shows nothing.',
    choices: { word: 'PART', entries: [{ name: 'first', title: 'the first part' }] },
    options: {
      workers: countOption({ help: 'Workers', default: '4', quick: '1' }),
      steps: risingOption({ help: 'Steps', default: '1,2' }),
      models: namesOption({ help: 'Models', default: 'a,b' }),
    },
    reports: (values, chosen) => {
      seen.push({ values, chosen })
      return []
    },
  })
  return { bench, seen }
}

test('command-line options take precedence over the defaults of a quick run and the general defaults', (t) => {
  const { bench, seen } = benchThatTells()
  bench.prepare([])
  bench.prepare(['--quick'])
  bench.prepare(['first', '--quick', '--workers', '7'])
  const rest = { steps: [1, 2], models: ['a', 'b'] }
  t.deepEqual(seen, [
    { values: { workers: 4, ...rest }, chosen: [] },
    { values: { workers: 1, ...rest }, chosen: [] },
    { values: { workers: 7, ...rest }, chosen: ['first'] },
  ])
})

test('a wrong command line is rejected with the name of the option, and nothing runs', (t) => {
  const { bench, seen } = benchThatTells()
  for (const [args, message] of [
    [['--workers', '0'], /--workers: expected an integer from 1, got "0"/],
    [['--workers', ''], /--workers/],
    [['--steps', '2,1'], /--steps: expected ascending numbers/],
    [['--models', ','], /--models/],
    [['--unknown'], /--unknown/],
    [['second'], /unknown "second", expected one of first/],
  ] as const) {
    t.throws(() => bench.prepare(args), { instanceOf: UsageError, message })
  }
  t.is(seen.length, 0)
})

test('the help of a bench lists its parts, its options and their defaults', (t) => {
  const { bench, seen } = benchThatTells()
  t.is(bench.prepare(['--help']), null)
  t.is(seen.length, 0)
  for (const part of ['the first part', '--workers N', '(4; quick: 1)', '--quick', '(a,b)']) {
    t.true(bench.help.includes(part), part)
  }
})

test('a table shows ahead or behind only if all rounds agree', (t) => {
  const onecopy = [100, 110]
  t.regex(leadCell({ onecopy, other: [50, 100], better: 'higher' }), /^ahead 1\.55 /)
  t.regex(leadCell({ onecopy, other: [150, 120], better: 'higher' }), /^\*\*behind\*\*/)
  t.regex(leadCell({ onecopy, other: [50, 120], better: 'higher' }), /^level/)
  t.regex(leadCell({ onecopy, other: [150, 120], better: 'lower' }), /^ahead/)
  t.is(leadCell({ onecopy: [], other: [1], better: 'lower' }), '-')
})

test('a variant that is not installed is left out with a note; an unknown one is rejected', (t) => {
  const missing = allVariants().filter((variant) => variant.missing !== null)
  const { variants, notes } = chooseVariants(['onecopy', 'pm2-koa', 'peers'], 'binary')
  t.is(variants[0]?.name, 'onecopy')
  for (const { name } of missing.filter((one) => one.name !== 'reload-per-request')) {
    t.false(variants.some((variant) => variant.name === name))
    t.true(
      notes.some((note) => note.startsWith(`${name}: **skipped**`)),
      name,
    )
  }
  t.deepEqual(variantNames().sort(), [...allVariants().map(({ name }) => name), 'peers'].sort())
  const option = variantsOption({ default: 'onecopy,peers' })
  t.deepEqual(option.parse(option.default), ['onecopy', 'peers'])
  t.throws(() => option.parse('nginx'), { message: /expected names from onecopy.*fastapi.*"nginx"/ })
})

test('every peer defines its start and installation, and pins its requirements', (t) => {
  const folder = join(PROJECT_ROOT, 'bench', 'peers')
  const folders = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())
  t.deepEqual(
    peerVariants().map(({ name }) => name),
    folders.map(({ name }) => name),
  )
  for (const { name } of folders) {
    if (!readdirSync(join(folder, name)).includes('requirements.txt')) continue
    const lines = readFileSync(join(folder, name, 'requirements.txt'), 'utf8')
      .trim()
      .split('\n')
    for (const line of lines) t.regex(line, /^[\w-]+==[\d.]+$/, name)
  }
})

test('lines omit missing values, and a logarithmic axis has equal steps for equal ratios', (t) => {
  const svg = drawChart({
    kind: 'lines',
    title: 'a < b',
    xLabel: 'x',
    yLabel: 'y',
    isLogX: true,
    series: [
      {
        label: 'one',
        points: [
          [1, 1],
          [4, 2],
          [16, Number.NaN],
          [64, 3],
        ],
      },
    ],
  })
  t.false(svg.includes('NaN'))
  t.true(svg.includes('a &lt; b'))
  const places = [...svg.matchAll(/<circle cx="([\d.]+)"/g)].map((match) => Number(match[1]))
  t.is(places.length, 3)
  const [first = 0, second = 0, last = 0] = places
  t.true(Math.abs((last - first) / (second - first) - 3) < 0.01)
})
