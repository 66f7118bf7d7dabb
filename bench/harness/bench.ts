/** What a bench is: a name, what it shows, what it can be told, and the reports that it runs. */
import { type OptionTable, type OptionValues, optionsHelp, readOptions, UsageError } from './options.js'
import type { BenchReport } from './report.js'

/** Measures and reports; started one after the other. */
export type RunReport = () => Promise<BenchReport>

/** Parts of a bench that can be named on its command line; all of them where none is. */
export interface Choices {
  /** One of them, in the help. */
  readonly word: string
  readonly entries: readonly { readonly name: string; readonly title: string }[]
}

export interface BenchDefinition<O extends OptionTable> {
  readonly name: string
  readonly summary: string
  readonly options: O
  readonly choices?: Choices
  /** Ends the help: what exit code 1 means. */
  readonly failsWhen?: string
  /** `chosen` is empty where nothing was named. */
  reports(values: OptionValues<O>, chosen: readonly string[]): readonly RunReport[]
}

export interface Bench {
  readonly name: string
  readonly summary: string
  readonly help: string
  /** @throws UsageError. Null where the arguments ask for the help. */
  prepare(args: readonly string[]): readonly RunReport[] | null
}

export function defineBench<const O extends OptionTable>(definition: BenchDefinition<O>): Bench {
  const { name, summary, options, choices, reports } = definition
  return {
    name,
    summary,
    help: helpOf(definition),
    prepare: (args) => {
      const { values, positionals, isHelpWanted } = readOptions(options, args)
      if (isHelpWanted) return null
      const known = choices?.entries.map((entry) => entry.name) ?? []
      const unknown = positionals.find((one) => !known.includes(one))
      if (unknown !== undefined) {
        throw new UsageError(
          `${name} knows no ${JSON.stringify(unknown)}${known.length === 0 ? '' : `, but ${known.join(', ')}`}`,
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
          `${choices.word} (all of them where none is named):\n${choices.entries
            .map((entry) => `  ${entry.name.padEnd(width)}${entry.title}`)
            .join('\n')}`,
        ]),
    `Options (default in parentheses):\n${optionsHelp(options)}`,
    ...(failsWhen === undefined ? [] : [`Exit code 1 when ${failsWhen}.`]),
  ]
  return `${parts.join('\n\n')}\n`
}
