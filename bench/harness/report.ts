/**
 * The result of a bench. Prints Markdown to standard output; writes JSON, the same Markdown and charts to
 * bench/results.
 */
import { mkdir, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { describeMachine, type Machine, machineLine } from './machine.js'
import { PACKAGE_ROOT, RESULTS_DIR } from './paths.js'
import { wasStopped } from './stage.js'
import { type Chart, drawChart } from './svg.js'

/** One claim and whether this run meets it. */
export interface Check {
  readonly claim: string
  readonly bar: string
  readonly got: string
  readonly isMet: boolean
}

export interface Table {
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

export interface BenchReport {
  readonly name: string
  readonly title: string
  readonly table: Table
  readonly checks: readonly Check[]
  readonly notes: readonly string[]
  readonly charts: readonly Chart[]
  /** Everything needed to repeat it: models with seeds and digests, loads, options. */
  readonly setting: unknown
  /** Every sample. */
  readonly raw: unknown
}

function markdownTable({ head, rows }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, index) => (index === 0 ? '---' : '---:'))), ...rows.map(line)].join(
    '\n',
  )
}

export function toMarkdown(report: BenchReport): string {
  const { name, title, table, checks, notes } = report
  const verdicts = checks.map(
    ({ claim, bar, got, isMet }) => `- **${isMet ? 'pass' : 'MISS'}** ${claim}: ${got} (bar: ${bar})`,
  )
  const parts = [
    `## ${name}: ${title}`,
    markdownTable(table),
    verdicts.join('\n'),
    notes.map((note) => `- ${note}`).join('\n'),
  ]
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`
}

async function writeResults(report: BenchReport, machine: Machine): Promise<string> {
  await mkdir(RESULTS_DIR, { recursive: true })
  const measuredAt = new Date().toISOString()
  const base = join(RESULTS_DIR, `${report.name}-${measuredAt.replaceAll(/[:.]/g, '-')}`)
  const { charts, ...rest } = report
  await writeFile(`${base}.json`, `${JSON.stringify({ measuredAt, machine, ...rest }, null, 2)}\n`)
  await writeFile(`${base}.md`, `${machineLine(machine)}\n\n${toMarkdown(report)}`)
  for (const [index, chart] of charts.entries()) {
    await writeFile(`${base}${index === 0 ? '' : `-${index + 1}`}.svg`, drawChart(chart))
  }
  return `${base}.json`
}

/**
 * Runs each bench in turn and prints its result. Resolves with the exit code: 1 if any bar was missed or a
 * report failed.
 */
export async function runBenches(benches: readonly (() => Promise<BenchReport>)[]): Promise<number> {
  const machine = describeMachine()
  process.stdout.write(`${machineLine(machine)}\n\n`)
  const missed: string[] = []
  for (const [index, bench] of benches.entries()) {
    if (benches.length > 1) process.stderr.write(`report ${index + 1} of ${benches.length}\n`)
    let report: BenchReport
    try {
      report = await bench()
    } catch (thrown) {
      // The stage exits the process after its cleanup.
      if (wasStopped()) await new Promise<never>(() => {})
      // The other reports are still valid.
      const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)
      process.stderr.write(`${text}\n`)
      missed.push(`report ${index + 1} failed: ${text.split('\n')[0]}`)
      continue
    }
    const path = await writeResults(report, machine)
    process.stdout.write(`${toMarkdown(report)}\n`)
    process.stderr.write(`written ${relative(PACKAGE_ROOT, path)}\n`)
    for (const { claim, bar, got, isMet } of report.checks) {
      if (!isMet) missed.push(`${report.name}: ${claim}: ${got}, bar ${bar}`)
    }
  }
  for (const line of missed) process.stderr.write(`missed: ${line}\n`)
  return missed.length === 0 ? 0 : 1
}
