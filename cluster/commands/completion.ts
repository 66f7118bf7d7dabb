/** `onecopy completion SHELL`: completion scripts, generated from the same tables as the help. */
import { serveFlags } from '../../src/config/load.js'
import { EXIT } from '../exit-codes.js'
import { commandLine, usageError } from './arguments.js'
import { COMMAND_NAMES, COMMANDS, type CommandDefinition, type CommandName } from './definitions.js'

export const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** Flags of a command with leading dashes, sorted. */
function flagsOf(name: CommandName): string[] {
  const { flags, takesServeOptions = false }: CommandDefinition = COMMANDS[name]
  const names = [...Object.keys(flags), ...(takesServeOptions ? Object.keys(serveFlags()) : []), 'help']
  return [...new Set(names)].sort().map((flag) => `--${flag}`)
}

/** Words that may follow a command, besides flags and files. */
function wordsOf(name: CommandName): readonly string[] {
  if (name === 'help') return COMMAND_NAMES
  if (name === 'completion') return SHELLS
  return name === 'ersilia' ? ['serve'] : []
}

function bash(): string {
  const cases = COMMAND_NAMES.map(
    (name) => `    ${name}) flags='${flagsOf(name).join(' ')}' words='${wordsOf(name).join(' ')}' ;;`,
  )
  return `_onecopy() {
  local current=\${COMP_WORDS[COMP_CWORD]} flags words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${COMMAND_NAMES.join(' ')} --help --version' -- "$current"))
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.join('\n')}
  esac
  if [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$flags" -- "$current"))
  else COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current")); fi
}
complete -o filenames -F _onecopy onecopy`
}

function zsh(): string {
  const quote = (text: string) => text.replaceAll("'", "'\\''").replaceAll(':', '\\:')
  const commands = COMMAND_NAMES.map((name) => `    '${name}:${quote(COMMANDS[name].summary)}'`)
  const cases = COMMAND_NAMES.map(
    (name) => `    ${name}) flags=(${flagsOf(name).join(' ')}) words=(${wordsOf(name).join(' ')}) ;;`,
  )
  return `#compdef onecopy
_onecopy() {
  local -a commands flags words
  commands=(
${commands.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case $words[2] in
${cases.join('\n').replaceAll('words=(', 'others=(')}
  esac
  if [[ $PREFIX == -* ]]; then compadd -- $flags; else compadd -- $others; _files; fi
}
compdef _onecopy onecopy`.replace('local -a commands flags words', 'local -a commands flags others')
}

function fish(): string {
  const quote = (text: string) => text.replaceAll("'", "\\'")
  const lines = COMMAND_NAMES.flatMap((name) => [
    `complete -c onecopy -n __fish_use_subcommand -f -a ${name} -d '${quote(COMMANDS[name].summary)}'`,
    ...flagsOf(name).map(
      (flag) => `complete -c onecopy -n '__fish_seen_subcommand_from ${name}' -l ${flag.slice(2)}`,
    ),
    ...wordsOf(name).map((word) => `complete -c onecopy -n '__fish_seen_subcommand_from ${name}' -a ${word}`),
  ])
  return lines.join('\n')
}

const SCRIPTS: Record<Shell, () => string> = { bash, zsh, fish }

/** Runs `onecopy completion`; returns the exit code. */
export function runCompletion(argv: readonly string[]): number {
  const { positionals } = commandLine('completion', argv)
  const shell = SHELLS.find((one) => one === positionals[0])
  if (shell === undefined || positionals.length > 1)
    throw usageError(
      `expected one of ${SHELLS.join(', ')}, got ${positionals.join(' ') || 'none'}`,
      'completion',
    )
  process.stdout.write(`${SCRIPTS[shell]()}\n`)
  return EXIT.ok
}
