/** Parses command lines against flag definitions and suggests the nearest flag for an unknown one. */
import { parseArgs } from 'node:util'
import { messageOf, OnecopyError } from '../errors.js'
import { didYouMean } from './suggest-word.js'

export interface FlagShape {
  readonly isSwitch: boolean
  /** Repeated values are joined with commas. */
  readonly isList?: boolean
}

export interface CommandLine {
  /** Values as written; a switch is `on`, and `--no-X` is `off`. */
  readonly values: Readonly<Record<string, string>>
  readonly positionals: readonly string[]
}

/**
 * @param flags Names without the leading dashes.
 * @throws OnecopyError CONFIG_INVALID that names the unknown flag and the nearest known one.
 */
export function parseCommandLine(
  argv: readonly string[],
  flags: Readonly<Record<string, FlagShape>>,
  command: string,
): CommandLine {
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { isSwitch, isList = false }]) => [
      name,
      { type: isSwitch ? ('boolean' as const) : ('string' as const), multiple: isList },
    ]),
  )
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      options,
      strict: true,
      allowPositionals: true,
      // Otherwise --no-measure would be parsed as the negation of a --measure flag that does not exist.
      allowNegative: !Object.keys(flags).some((name) => name.startsWith('no-')),
    })
    const texts = Object.entries(values).map(([name, value]) => [
      name,
      typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value),
    ])
    return { values: Object.fromEntries(texts), positionals }
  } catch (thrown) {
    const unknown = /^Unknown option '--([^'=]+)'/.exec(messageOf(thrown))?.[1]
    const hint =
      unknown === undefined
        ? messageOf(thrown)
        : `unknown option --${unknown}${didYouMean(unknown, Object.keys(flags), '--')}`
    throw new OnecopyError('CONFIG_INVALID', `${hint} (see onecopy ${command} --help)`)
  }
}
