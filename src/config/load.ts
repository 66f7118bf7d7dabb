/**
 * Merges flags, environment, file and defaults into one frozen Config, or throws one error that
 * lists all problems.
 */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { type Config, toConfig } from './config.js'
import { type CommandLine, type FlagShape, parseCommandLine } from './flags.js'
import { isLoopbackHost } from './host-names.js'
import { OPTIONS, type OptionName, type Parsed } from './schema.js'
import { MIN_RECEIVING_PER_BODY } from './size-options.js'
import { didYouMean } from './suggest-word.js'

const NAMES = Object.keys(OPTIONS) as OptionName[]

/** `drainTimeout` becomes `drain-timeout`. */
export function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

export function environmentName(name: string): string {
  return `ONECOPY_${dashed(name).replaceAll('-', '_').toUpperCase()}`
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('CONFIG_INVALID', message)
}

/** The flags of `serve`, used by the parser and by shell completion. */
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
 * Parses the command line of a command that accepts the options of `serve` and its own flags.
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

/**
 * Options as a script gives them: those of the config file, where true and false may stand for on
 * and off, and lists for commas.
 */
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
 * Loads the configuration of `onecopy serve`.
 * @throws OnecopyError CONFIG_INVALID that lists every invalid value and its source.
 */
export function loadConfig(argv: readonly string[], environment: NodeJS.ProcessEnv = process.env): Config {
  const { values, positionals } = readServeFlags(argv, 'serve')
  return configOf(values, environment, positionals)
}

/**
 * Like loadConfig, from flags that are already parsed; `paths` are the models that the command line
 * names.
 * @throws OnecopyError CONFIG_INVALID.
 */
export function configOf(
  flags: Readonly<Record<string, string>>,
  environment: NodeJS.ProcessEnv = process.env,
  paths: readonly string[] = [],
  script: ScriptOptions = {},
): Config {
  checkKeys(script, 'serve')
  const configPath = flags.config ?? environment[environmentName('config')]
  const file = configPath === undefined ? {} : readFile(configPath)
  const values: Record<string, unknown> = {}
  const problems: string[] = []
  const sources = new Set<OptionName>()
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
    if (source !== null) sources.add(name)
    const parsed = definition.schema.safeParse(value)
    if (parsed.success) values[name] = parsed.data
    else problems.push(`${source ?? name}: ${parsed.error.issues.map((issue) => issue.message).join('; ')}`)
  }
  if (problems.length === 0) problems.push(...contradictions(values as Parsed))
  if (problems.length > 0) throw invalid(problems.join('\n'))
  const options = values as Parsed
  // The default, the built-in model, gives way to paths on the command line; what was named is
  // served with them.
  const named = sources.has('models') ? [options.models] : []
  const modelPaths = [...named, ...paths.map((path) => resolve(path))]
  return toConfig(options, modelPaths.length === 0 ? [options.models] : modelPaths)
}

/** Options that are valid individually but conflict with each other. */
function contradictions(parsed: Parsed): string[] {
  const { tlsCert, tlsKey, tlsCa, adminTls, adminHost } = parsed
  const problems: string[] = []
  const isGuarded =
    parsed.adminToken !== '' || parsed.apiKeys !== '' || parsed.apiKeysFile !== '' || adminTls === 'mutual'
  if (!isLoopbackHost(adminHost) && !isGuarded && !parsed.adminInsecure)
    problems.push(
      `--admin-host ${adminHost}: expected --admin-token, --api-keys-file or --admin-tls mutual as well, because anyone who reaches the admin port can change models and workers; --admin-insecure on allows it without them`,
    )
  const hasAdminKey = parsed.adminToken !== '' || parsed.apiKeys !== '' || parsed.apiKeysFile !== ''
  if (
    parsed.repositoryApi === 'public' &&
    !isLoopbackHost(parsed.host) &&
    !hasAdminKey &&
    !parsed.adminInsecure
  )
    problems.push(
      `--repository-api public: expected --admin-token or --api-keys-file beside it, because every client that reaches --host ${parsed.host} could change models; --admin-insecure on allows it without`,
    )
  if ((tlsCert === '') !== (tlsKey === ''))
    problems.push('expected both --tls-cert and --tls-key or neither, got only one')
  if (tlsCert === '' && tlsCa !== '') problems.push('--tls-ca: expected --tls-cert and --tls-key as well')
  if (tlsCert === '' && adminTls !== 'off')
    problems.push(`--admin-tls ${adminTls}: expected --tls-cert and --tls-key as well`)
  if (tlsCa === '' && adminTls === 'mutual') problems.push('--admin-tls mutual: expected --tls-ca as well')
  const leastReceiving = parsed.maxBody * MIN_RECEIVING_PER_BODY
  if (parsed.maxReceiving !== null && parsed.maxReceiving < leastReceiving)
    problems.push(
      `--max-receiving: expected at least ${leastReceiving} bytes, twice --max-body, got ${parsed.maxReceiving}`,
    )
  return problems
}
