/** Claims about speed and stability, one row with a bar for each. */
import { defineBench } from './harness/bench.js'
import { countOption, positiveOption } from './harness/options.js'
import type { BenchReport } from './harness/report.js'
import { Stage } from './harness/stage.js'
import { binaryAgainstJson, convnet, largeBinary, oneConnection, smallJson } from './rows/comparisons.js'
import { headOfLine, headOfLineJson } from './rows/head-of-line.js'
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
  headOfLineJson,
  hostile,
  memoryGrowth,
]

async function runRow(row: Row, options: RowOptions): Promise<BenchReport> {
  const { name, title } = row
  await using stage = new Stage()
  return await row.run({ name, title, stage, options })
}

export const rows = defineBench({
  name: 'rows',
  summary: 'Claims about speed and stability, one row each, measured in alternation with a baseline.',
  choices: { word: 'ROW', entries: ROWS },
  options: {
    seconds: positiveOption({ help: 'Duration of one measurement of one variant', default: '5', quick: '1' }),
    rounds: countOption({ help: 'Measurements of each variant, alternating', default: '4', quick: '2' }),
    workers: countOption({ help: 'Workers of each variant', default: '2' }),
    batches: countOption({
      help: 'Requests to each worker in memory-growth',
      default: '10000',
      quick: '500',
    }),
  },
  failsWhen: 'a bar is missed',
  reports: (options: RowOptions, chosen) => {
    const selected = chosen.length === 0 ? ROWS : ROWS.filter(({ name }) => chosen.includes(name))
    return selected.map((row) => () => runRow(row, options))
  },
})
