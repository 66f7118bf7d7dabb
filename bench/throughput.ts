/** Speed and steadiness, one row a claim: `node dist/bench/throughput.js [ROW ...]`. */
import { parseArgs } from 'node:util'
import { positive } from './harness/options.js'
import { type BenchReport, runBenches } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { binaryAgainstJson, convnet, largeBinary, oneConnection, smallJson } from './rows/comparisons.js'
import { headOfLine } from './rows/head-of-line.js'
import { hostile } from './rows/hostile.js'
import { memoryGrowth } from './rows/memory-growth.js'
import { overload } from './rows/overload.js'
import { rebalance } from './rows/rebalance.js'
import type { Row, RowOptions } from './rows/row.js'

const ROWS: readonly Row[] = [
  smallJson,
  largeBinary,
  convnet,
  oneConnection,
  binaryAgainstJson,
  overload,
  rebalance,
  headOfLine,
  hostile,
  memoryGrowth,
]

const USAGE = `Usage: node dist/bench/throughput.js [ROW ...] [options]

Rows (all of them where none is named):
${ROWS.map(({ name, title }) => `  ${name.padEnd(16)}${title}`).join('\n')}

Options:
  --seconds S    Length of one measurement of one variant (5)
  --rounds N     Measurements of each variant, in turns (4)
  --workers N    Workers of each variant (2)
  --batches N    Requests to each worker in memory-growth (10000)

Exit code 1 when a bar is missed.
`

async function runRow(row: Row, options: RowOptions): Promise<BenchReport> {
  const { name, title } = row
  await using stage = new Stage()
  return await row.run({ name, title, stage, options })
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '5' },
      rounds: { type: 'string', default: '4' },
      workers: { type: 'string', default: '2' },
      batches: { type: 'string', default: '10000' },
      help: { type: 'boolean' },
    },
  })
  const unknown = positionals.filter((name) => !ROWS.some((row) => row.name === name))
  if (values.help === true || unknown.length > 0) {
    for (const name of unknown) process.stderr.write(`no row ${JSON.stringify(name)}\n`)
    process.stderr.write(USAGE)
    return unknown.length > 0 ? 2 : 0
  }
  const options: RowOptions = {
    seconds: positive('seconds', values.seconds),
    rounds: positive('rounds', values.rounds),
    workers: positive('workers', values.workers),
    batches: positive('batches', values.batches),
  }
  const rows = positionals.length === 0 ? ROWS : ROWS.filter(({ name }) => positionals.includes(name))
  return await runBenches(rows.map((row) => () => runRow(row, options)))
}

process.exitCode = await main(process.argv.slice(2))
