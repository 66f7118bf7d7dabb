/** Flags, then environment, then file, then defaults: one frozen Config, or one error that names them all. */
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { type Config, toConfig } from './config.js'
import { type CommandLine, type FlagShape, parseCommandLine } from './flags.js'
import { isLoopbackHost } from './host-names.js'
import { OPTIONS, type OptionName, type Parsed } from './schema.js'
import { didYouMean } from './suggest-word.js'

const NAMES = Object.keys(OPTIONS) as OptionName[]

/** `drainTimeout` as a flag: `drain-timeout`. */
export function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

export function environmentName(name: string): string {
  return `ONECOPY_${dashed(name).replaceAll('-', '_').toUpperCase()}`
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('CONFIG_INVALID', message)
}

/** The flags of `serve`, for the parser and for shell completion. */
export function serveFlags(): Record<string, FlagShape> {
  const flags: Record<string, FlagShape> = {
    config: { isSwitch: false },
    watch: { isSwitch: true },
  }
  for (const name of NAMES) {
    const definition = OPTIONS[name]
    flags[dashed(name)] = { isSwitch: 'isSwitch' in definition, isList: 'isList' in definition }
  }
  return flags
}

/**
 * The command line of a command that takes the options of `serve`, and flags of its own.
 * @throws OnecopyError CONFIG_INVALID.
 */
export function readServeFlags(
  argv: readonly string[],
  command: string,
  own: Readonly<Record<string, FlagShape>> = {},
): CommandLine {
  const { values, positionals } = parseCommandLine(argv, { ...serveFlags(), ...own }, command)
  const { watch, ...flags } = values
  return { values: { ...(watch === 'on' ? { 'model-control': 'watch' } : {}), ...flags }, positionals }
}

function readFile(path: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(readFileSync(path, 'utf8'))
  } catch (thrown) {
    throw invalid(`--config ${path}: expected a JSON file: ${messageOf(thrown)}`)
  }
  const parsed = z.record(z.string(), z.unknown()).safeParse(value)
  if (!parsed.success) throw invalid(`--config ${path}: expected a JSON object`)
  checkKeys(parsed.data, `--config ${path}`)
  return parsed.data
}

function checkKeys(values: Readonly<Record<string, unknown>>, where: string): void {
  const unknown = Object.keys(values).filter((key) => !Object.hasOwn(OPTIONS, key))
  if (unknown.length === 0) return
  const hinted = unknown.map((key) => key + didYouMean(key, NAMES))
  throw invalid(`${where}: unknown keys ${hinted.join(', ')}; expected some of ${NAMES.join(', ')}`)
}

/** Options as a script gives them: those of the config file, where true and false may stand for on and off, and lists for commas. */
export type ScriptOptions = {
  readonly [Name in OptionName]?: string | number | boolean | readonly string[] | undefined
}

/** As a flag would say it. */
function scripted(value: ScriptOptions[OptionName]): string | number | undefined {
  if (typeof value === 'boolean') return value ? 'on' : 'off'
  if (typeof value === 'string' || typeof value === 'number') return value
  return value?.join(',')
}

/**
 * Reads the configuration of `onecopy serve`.
 * @throws OnecopyError CONFIG_INVALID listing every value that is not as expected, and where it came from.
 */
export function loadConfig(argv: readonly string[], environment: NodeJS.ProcessEnv = process.env): Config {
  const { values, positionals } = readServeFlags(argv, 'serve')
  if (positionals.length > 0)
    throw invalid(`expected options only, got ${JSON.stringify(positionals[0])} (see onecopy serve --help)`)
  return configOf(values, environment)
}

/**
 * The same from flags that were read already, or from a script's options, which win over the environment as flags do.
 * @throws OnecopyError CONFIG_INVALID.
 */
export function configOf(
  flags: Readonly<Record<string, string>>,
  environment: NodeJS.ProcessEnv = process.env,
  script: ScriptOptions = {},
): Config {
  checkKeys(script, 'serve')
  const configPath = flags.config ?? environment[environmentName('config')]
  const file = configPath === undefined ? {} : readFile(configPath)
  const values: Record<string, unknown> = {}
  const problems: string[] = []
  for (const name of NAMES) {
    const flag = flags[dashed(name)]
    const variable = environment[environmentName(name)]
    const definition = OPTIONS[name]
    const given = scripted(script[name])
    const [value, source] =
      flag !== undefined
        ? [flag, `--${dashed(name)}`]
        : given !== undefined
          ? [given, `serve: ${name}`]
          : variable !== undefined && variable !== ''
            ? [variable, environmentName(name)]
            : Object.hasOwn(file, name)
              ? [file[name], `${configPath}: ${name}`]
              : [definition.default(), null]
    const parsed = definition.schema.safeParse(value)
    if (parsed.success) values[name] = parsed.data
    else problems.push(`${source ?? name}: ${parsed.error.issues.map((issue) => issue.message).join('; ')}`)
  }
  if (problems.length === 0) problems.push(...contradictions(values as Parsed))
  if (problems.length > 0) throw invalid(problems.join('\n'))
  return toConfig(values as Parsed)
}

/** Options that are right by themselves and wrong together. */
function contradictions(parsed: Parsed): string[] {
  const { tlsCert, tlsKey, tlsCa, adminTls, adminHost } = parsed
  const problems: string[] = []
  const isGuarded =
    parsed.adminToken !== '' || parsed.apiKeys !== '' || parsed.apiKeysFile !== '' || adminTls === 'mutual'
  if (!isLoopbackHost(adminHost) && !isGuarded && !parsed.adminInsecure)
    problems.push(
      `--admin-host ${adminHost}: expected --admin-token, --api-keys-file or --admin-tls mutual beside it, because whoever reaches it may change models and workers; --admin-insecure on allows it without`,
    )
  if ((tlsCert === '') !== (tlsKey === ''))
    problems.push('expected both of --tls-cert and --tls-key, or none, got one')
  if (tlsCert === '' && tlsCa !== '') problems.push('--tls-ca: expected --tls-cert and --tls-key beside it')
  if (tlsCert === '' && adminTls !== 'off')
    problems.push(`--admin-tls ${adminTls}: expected --tls-cert and --tls-key beside it`)
  if (tlsCa === '' && adminTls === 'mutual') problems.push('--admin-tls mutual: expected --tls-ca beside it')
  return problems
}
