/** Command-line arguments of commands other than `serve`, validated with the schemas of `serve`. */
import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { type CommandLine, parseCommandLine } from '../../src/config/flags.js'
import { environmentName } from '../../src/config/load.js'
import { OPTIONS } from '../../src/config/schema.js'
import { OnecopyError } from '../../src/errors.js'
import { parseDurationMs } from '../../src/units.js'
import { COMMANDS, type CommandDefinition, type CommandName } from './definitions.js'

/** Parses the flags and positional arguments of a command. */
export function commandLine(command: CommandName, argv: readonly string[]): CommandLine {
  const { flags }: CommandDefinition = COMMANDS[command]
  const shapes = Object.entries(flags).map(([name, { value }]) => [name, { isSwitch: value === undefined }])
  return parseCommandLine(argv, Object.fromEntries(shapes), command)
}

/** The default of `serve`. */
export const COMPILE_TIMEOUT_MS = parseDurationMs(String(OPTIONS.compileTimeout.default())) as number

export function usageError(message: string, command: string): OnecopyError {
  return new OnecopyError('CONFIG_INVALID', `${message} (see onecopy ${command} --help)`)
}

/** The value of an option shared with `serve`: the flag, else the environment, else the default. */
function optionOf<Name extends 'segmentDir' | 'workers'>(
  name: Name,
  flag: string | undefined,
  { command, environment = process.env }: { command: string; environment?: NodeJS.ProcessEnv },
) {
  const value = flag ?? (environment[environmentName(name)] || OPTIONS[name].default())
  const parsed = OPTIONS[name].schema.safeParse(value)
  if (parsed.success) return parsed.data
  const why = parsed.error.issues.map(({ message }) => message).join('; ')
  throw usageError(`--${name === 'segmentDir' ? 'segment-dir' : name}: ${why}`, command)
}

export function segmentDirOf(
  flag: string | undefined,
  command: string,
  environment?: NodeJS.ProcessEnv,
): string {
  return optionOf('segmentDir', flag, { command, ...(environment && { environment }) }) as string
}

export function workersOf(flag: string | undefined, command: string): number {
  return optionOf('workers', flag, { command }) as number
}

/** The ONNX file that a command takes as its only argument. */
export function modelFileOf(positionals: readonly string[], command: string): string {
  const [file] = positionals
  if (file === undefined || positionals.length > 1)
    throw usageError(`expected one ONNX file, got ${positionals.length}`, command)
  const path = resolve(file)
  const found = statSync(path, { throwIfNoEntry: false })
  if (found?.isFile() === true) return path
  throw usageError(`expected an ONNX file at ${path}, got ${found ? 'something else' : 'nothing'}`, command)
}
