/** Help texts, generated from the tables of commands and options. */
import { type FlagHelp, flagLines, wrap } from '../../src/config/help.js'
import { dashed } from '../../src/config/load.js'
import { OPTION_GROUPS } from '../../src/config/option.js'
import { OPTIONS, type OptionName } from '../../src/config/schema.js'
import { COMMAND_NAMES, COMMANDS, type CommandDefinition, type CommandName } from './definitions.js'

/** The most common options. */
export const COMMON_OPTIONS: readonly OptionName[] = [
  'models',
  'host',
  'port',
  'workers',
  'modelControl',
  'adminHost',
  'adminPort',
  'apiKeysFile',
  'cacheDir',
  'logLevel',
]

function optionHelp(name: OptionName): FlagHelp {
  const definition = OPTIONS[name]
  return {
    flag: dashed(name),
    value: definition.value,
    help: definition.help,
    default: 'defaultHelp' in definition ? definition.defaultHelp : String(definition.default()),
  }
}

function ownFlags({ flags }: CommandDefinition): string[] {
  return Object.entries(flags).flatMap(([flag, { value = '', help, default: byDefault = null }]) =>
    flagLines({ flag, value, help, default: byDefault }),
  )
}

/** The ten most common options first, then every group. */
function serveOptions(): string[] {
  const names = Object.keys(OPTIONS) as OptionName[]
  const common = ['', 'Most used:', ...COMMON_OPTIONS.flatMap((name) => flagLines(optionHelp(name)))]
  const groups = OPTION_GROUPS.flatMap((group) => {
    const members = names.filter((name) => OPTIONS[name].group === group && !COMMON_OPTIONS.includes(name))
    return members.length === 0
      ? []
      : ['', `${group}:`, ...members.flatMap((name) => flagLines(optionHelp(name)))]
  })
  return [...common, ...groups]
}

/** The text of `onecopy COMMAND --help`. */
export function helpOf(name: CommandName): string {
  const command: CommandDefinition = COMMANDS[name]
  const lines = [`Usage: onecopy ${command.usage}`]
  for (const paragraph of command.about) lines.push('', ...wrap(paragraph))
  const flags = ownFlags(command)
  if (name === 'serve') lines.push(...serveOptions(), '', 'Other:', ...flags)
  else if (flags.length > 0) lines.push('', 'Options:', ...flags)
  if (name !== 'serve' && command.takesServeOptions === true)
    lines.push('', 'Every option of onecopy serve applies too (onecopy help serve).')
  for (const note of command.notes ?? []) lines.push('', ...wrap(note))
  return lines.join('\n')
}

/** The text of `onecopy --help`. */
export function overview(): string {
  const width = Math.max(...COMMAND_NAMES.map((name) => name.length)) + 2
  const commands = COMMAND_NAMES.flatMap((name) => {
    const [first = '', ...rest] = wrap(COMMANDS[name].summary, 78 - width)
    return [`  ${name.padEnd(width)}${first}`, ...rest.map((line) => ' '.repeat(width + 2) + line)]
  })
  return [
    'Usage: onecopy COMMAND [options]',
    '',
    'Commands:',
    ...commands,
    '',
    'Options:',
    '  --version  Print the version',
    '  --help     Show this text. onecopy help COMMAND describes a command',
  ].join('\n')
}
