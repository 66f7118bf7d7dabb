/** Command-line options of a bench: names, units, defaults, and values for a quick run. */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'

export interface Option<T> {
  /** Placeholder of the value in the help: N, S, LIST, NAME. */
  readonly placeholder: string
  readonly help: string
  readonly default: string
  /** Default of a quick run, if it differs. */
  readonly quick?: string
  /** @throws Error with what was expected. The name of the option is prepended. */
  readonly parse: (text: string) => T
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>
export type OptionValues<O extends OptionTable> = {
  readonly [K in keyof O]: O[K] extends Option<infer T> ? T : never
}

type Words = Pick<Option<unknown>, 'help' | 'default' | 'quick'> & { readonly placeholder?: string }

export function countOption({
  minimum = 1,
  ...words
}: Words & { readonly minimum?: number }): Option<number> {
  return { placeholder: 'N', ...words, parse: (text) => parseCount(text, minimum) }
}

export function positiveOption(words: Words): Option<number> {
  return {
    placeholder: 'S',
    ...words,
    parse: (text) => {
      const value = Number(text)
      if (value > 0 && Number.isFinite(value)) return value
      throw new Error(`expected a positive number, got ${JSON.stringify(text)}`)
    },
  }
}

export function textOption(words: Words): Option<string> {
  return {
    placeholder: 'NAME',
    ...words,
    parse: (text) => {
      if (text !== '') return text
      throw new Error('expected a text, got an empty string')
    },
  }
}

/** An existing folder, or none. */
export function folderOption(words: Omit<Words, 'default'>): Option<string | null> {
  return {
    placeholder: 'DIR',
    default: '',
    ...words,
    parse: (text) => {
      if (text === '') return null
      if (statSync(text, { throwIfNoEntry: false })?.isDirectory() === true) return resolve(text)
      throw new Error(`expected a folder, found none at ${JSON.stringify(text)}`)
    },
  }
}

/** One of a fixed set of values. */
export function choiceOption<T extends string>(choices: readonly T[], words: Words): Option<T> {
  return {
    placeholder: choices.join('|'),
    ...words,
    parse: (text) => {
      const found = choices.find((choice) => choice === text)
      if (found !== undefined) return found
      throw new Error(`expected one of ${choices.join(', ')}, got ${JSON.stringify(text)}`)
    },
  }
}

/** Comma-separated names. */
export function namesOption(words: Words): Option<readonly string[]> {
  return {
    placeholder: 'LIST',
    ...words,
    parse: (text) => {
      const names = text.split(',').filter((name) => name !== '')
      if (names.length > 0) return names
      throw new Error('expected comma-separated names, got none')
    },
  }
}

/** Comma-separated integers from 1, in ascending order. */
export function risingOption(words: Words): Option<readonly number[]> {
  return {
    placeholder: 'LIST',
    ...words,
    parse: (text) => {
      const values = text.split(',').map((part) => parseCount(part, 1))
      if (values.every((value, index) => value > (values[index - 1] ?? 0))) return values
      throw new Error(`expected ascending numbers, got ${text}`)
    },
  }
}

function parseCount(text: string, minimum: number): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isInteger(value) && value >= minimum) return value
  throw new Error(`expected an integer from ${minimum}, got ${JSON.stringify(text)}`)
}

/** The command line is wrong: prints the message and the help, exit code 2. */
export class UsageError extends Error {}

export interface ReadOptions<O extends OptionTable> {
  readonly values: OptionValues<O>
  readonly positionals: readonly string[]
  readonly isHelp: boolean
  readonly isQuick: boolean
}

/** @throws UsageError that names the option. */
export function readOptions<O extends OptionTable>(table: O, args: readonly string[]): ReadOptions<O> {
  const { values: given, positionals } = parse(table, args)
  const isQuick = given.quick === true
  const values = Object.fromEntries(
    Object.entries(table).map(([name, option]) => {
      const text = given[name] ?? (isQuick ? option.quick : undefined) ?? option.default
      try {
        return [name, option.parse(String(text))]
      } catch (thrown) {
        throw new UsageError(`--${name}: ${(thrown as Error).message}`)
      }
    }),
  )
  return { values: values as OptionValues<O>, positionals, isHelp: given.help === true, isQuick }
}

function parse(
  table: OptionTable,
  args: readonly string[],
): { values: Record<string, string | boolean | undefined>; positionals: string[] } {
  const own = Object.keys(table).map((name) => [name, { type: 'string' as const }])
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        ...Object.fromEntries(own),
        quick: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }) as ReturnType<typeof parse>
  } catch (thrown) {
    throw new UsageError((thrown as Error).message)
  }
}

/** One help line for each option. */
export function optionsHelp(table: OptionTable): string {
  const rows = Object.entries(table).map(([name, option]) => {
    const short = option.quick === undefined ? '' : `; quick: ${option.quick}`
    return [`--${name} ${option.placeholder}`, `${option.help} (${option.default}${short})`] as const
  })
  const common = [
    ['--quick', 'A short run: shows the trend, but its numbers are not reliable'],
    ['--help', 'Print this text'],
  ] as const
  const all = [...rows, ...common]
  const width = Math.max(...all.map(([left]) => left.length)) + 2
  return all.map(([left, right]) => `  ${left.padEnd(width)}${right}`).join('\n')
}
