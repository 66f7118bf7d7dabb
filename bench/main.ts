/**
 * The bench command. `npm run bench` runs a short version of each bench that the README shows; `npm run bench
 * -- NAME` runs one in full. Markdown goes to standard output, progress to standard error, and all results to
 * bench/results.
 */
import { attachBench } from './attach.js'
import { attachSoak } from './attach-soak.js'
import { chaos } from './chaos.js'
import { codec } from './codec.js'
import { cycles } from './cycles.js'
import { ersilia } from './ersilia.js'
import { grpc } from './grpc.js'
import type { Bench, RunReport } from './harness/bench.js'
import { UsageError } from './harness/options.js'
import { runBenches } from './harness/report.js'
import { exitOnSignals } from './harness/stage.js'
import { hotSwap } from './hot-swap.js'
import { latency } from './latency.js'
import { manyModels } from './many-models.js'
import { memory } from './memory.js'
import { requestLoad } from './request-load.js'
import { respawn } from './respawn.js'
import { rows } from './rows.js'
import { start } from './start.js'
import { swaps } from './swaps.js'
import { texts } from './texts.js'
import { throughput } from './throughput.js'
import { workerMemory } from './worker-memory.js'

/** In this order: about ten minutes on two cores, once the models are generated. */
const SHOWN: readonly Bench[] = [memory, throughput, latency, start, respawn, hotSwap, requestLoad, codec]
const OTHERS: readonly Bench[] = [
  ...[attachBench, attachSoak, workerMemory, rows, swaps, cycles, chaos, manyModels, ersilia, texts, grpc],
]
const BENCHES = [...SHOWN, ...OTHERS]

function listed(benches: readonly Bench[]): string {
  return benches.map(({ name, summary }) => `  ${name.padEnd(16)}${summary}`).join('\n')
}

const USAGE = `Usage: npm run bench [-- NAME [options]]

Without a name, a short run of each of these, about ten minutes in total:
${listed(SHOWN)}

On demand:
${listed(OTHERS)}

Options of each: npm run bench -- NAME --help. Common to all: --quick for a short run.
Results are written to bench/results: JSON with every sample, a Markdown table and SVG charts.
`

/** The reports that the arguments select; null if they request the help, which is printed. */
function prepare(args: readonly string[]): readonly RunReport[] | null {
  const [name, ...rest] = args
  if (name === undefined) return SHOWN.flatMap((bench) => bench.prepare(['--quick']) ?? [])
  if (name === '--help' || name === '-h') {
    process.stdout.write(USAGE)
    return null
  }
  const bench = BENCHES.find((one) => one.name === name)
  if (bench === undefined) throw new UsageError(`no bench ${JSON.stringify(name)}\n\n${USAGE}`)
  try {
    const reports = bench.prepare(rest)
    if (reports === null) process.stdout.write(bench.help)
    return reports
  } catch (thrown) {
    if (thrown instanceof UsageError) throw new UsageError(`${thrown.message}\n\n${bench.help}`)
    throw thrown
  }
}

async function main(args: readonly string[]): Promise<number> {
  try {
    const reports = prepare(args)
    return reports === null ? 0 : await runBenches(reports)
  } catch (thrown) {
    if (!(thrown instanceof UsageError)) throw thrown
    process.stderr.write(`${thrown.message}\n`)
    return 2
  }
}

exitOnSignals()
process.exit(await main(process.argv.slice(2)))
