/** Defines a bench: its name, summary, options and reports. */
import { type OptionTable, type OptionValues, optionsHelp, readOptions, UsageError } from './options.js'
import type { BenchReport } from './report.js'

/** Measures and returns a report. Reports run one after the other. */
export type RunReport = () => Promise<BenchReport>

/** Parts of a bench that the command line can select; all by default. */
export interface Choices {
  /** The placeholder in the help. */
  readonly word: string
  readonly entries: readonly { readonly name: string; readonly title: string }[]
}

export interface BenchDefinition<O extends OptionTable> {
  readonly name: string
  readonly summary: string
  readonly options: O
  readonly choices?: Choices
  /** The meaning of exit code 1, at the end of the help. */
  readonly failsWhen?: string
  /** `chosen` is empty if no part is selected. */
  reports(values: OptionValues<O>, chosen: readonly string[]): readonly RunReport[]
}

export interface Bench {
  readonly name: string
  readonly summary: string
  readonly help: string
  /**
   * Returns null if the arguments request the help.
   * @throws UsageError.
   */
  prepare(args: readonly string[]): readonly RunReport[] | null
}

export function defineBench<const O extends OptionTable>(definition: BenchDefinition<O>): Bench {
  const { name, summary, options, choices, reports } = definition
  return {
    name,
    summary,
    help: helpOf(definition),
    prepare: (args) => {
      const { values, positionals, isHelp } = readOptions(options, args)
      if (isHelp) return null
      const known = choices?.entries.map((entry) => entry.name) ?? []
      const unknown = positionals.find((one) => !known.includes(one))
      if (unknown !== undefined) {
        throw new UsageError(
          `${name}: unknown ${JSON.stringify(unknown)}${known.length === 0 ? '' : `, expected one of ${known.join(', ')}`}`,
        )
      }
      return reports(values, positionals)
    },
  }
}

function helpOf({ name, summary, options, choices, failsWhen }: BenchDefinition<OptionTable>): string {
  const width = Math.max(0, ...(choices?.entries.map((entry) => entry.name.length) ?? [])) + 2
  const parts = [
    `Usage: npm run bench -- ${name} ${choices === undefined ? '' : `[${choices.word} ...] `}[options]`,
    summary,
    ...(choices === undefined
      ? []
      : [
          `${choices.word} (default: all):\n${choices.entries
            .map((entry) => `  ${entry.name.padEnd(width)}${entry.title}`)
            .join('\n')}`,
        ]),
    `Options (default in parentheses):\n${optionsHelp(options)}`,
    ...(failsWhen === undefined ? [] : [`Exit code 1 when ${failsWhen}.`]),
  ]
  return `${parts.join('\n\n')}\n`
}
