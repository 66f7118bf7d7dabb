/** What a bench can be told on its command line: one table says names, units, defaults and what a short run takes. */
import { parseArgs } from 'node:util'

export interface Option<T> {
  /** What stands for the value in the help: N, S, LIST, NAME. */
  readonly placeholder: string
  readonly help: string
  readonly default: string
  /** In a short run, where that differs. */
  readonly quick?: string
  /** @throws Error that says what was expected; the option's name is put before it. */
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
      throw new Error('expected a text, got none')
    },
  }
}

/** One of a few words. */
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

/** Names, separated by commas. */
export function namesOption(words: Words): Option<readonly string[]> {
  return {
    placeholder: 'LIST',
    ...words,
    parse: (text) => {
      const names = text.split(',').filter((name) => name !== '')
      if (names.length > 0) return names
      throw new Error('expected names, separated by commas, got none')
    },
  }
}

/** Rising integers from 1, separated by commas. */
export function risingOption(words: Words): Option<readonly number[]> {
  return {
    placeholder: 'LIST',
    ...words,
    parse: (text) => {
      const values = text.split(',').map((part) => parseCount(part, 1))
      if (values.every((value, index) => value > (values[index - 1] ?? 0))) return values
      throw new Error(`expected rising numbers, got ${text}`)
    },
  }
}

function parseCount(text: string, minimum: number): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isInteger(value) && value >= minimum) return value
  throw new Error(`expected an integer from ${minimum}, got ${JSON.stringify(text)}`)
}

/** The command line itself is wrong: answered with the message and the help, exit code 2. */
export class UsageError extends Error {}

export interface ReadOptions<O extends OptionTable> {
  readonly values: OptionValues<O>
  readonly positionals: readonly string[]
  readonly isHelpWanted: boolean
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
  return { values: values as OptionValues<O>, positionals, isHelpWanted: given.help === true, isQuick }
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

/** The lines of a help, one option each. */
export function optionsHelp(table: OptionTable): string {
  const rows = Object.entries(table).map(([name, option]) => {
    const short = option.quick === undefined ? '' : `; quick: ${option.quick}`
    return [`--${name} ${option.placeholder}`, `${option.help} (${option.default}${short})`] as const
  })
  const common = [
    ['--quick', 'A short run: enough to see the picture, not to quote its numbers'],
    ['--help', 'Print this text'],
  ] as const
  const all = [...rows, ...common]
  const width = Math.max(...all.map(([left]) => left.length)) + 2
  return all.map(([left, right]) => `  ${left.padEnd(width)}${right}`).join('\n')
}
