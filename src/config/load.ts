/** Flags, then environment, then file, then defaults: one frozen Config, or one error that names them all. */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { z } from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { type Config, toConfig } from './config.js'
import { isLoopbackHost } from './host-names.js'
import { OPTIONS, type OptionName, type Parsed } from './schema.js'

const NAMES = Object.keys(OPTIONS) as OptionName[]

function dashed(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

export function environmentName(name: string): string {
  return `ONECOPY_${dashed(name).replaceAll('-', '_').toUpperCase()}`
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('CONFIG_INVALID', message)
}

/** How parseArgs is to read an option. */
function flagOf(name: OptionName): { type: 'string' | 'boolean'; multiple: boolean } {
  const definition = OPTIONS[name]
  return { type: 'isSwitch' in definition ? 'boolean' : 'string', multiple: 'isList' in definition }
}

function readFlags(argv: readonly string[]): Record<string, string> {
  const options = Object.fromEntries(NAMES.map((name) => [dashed(name), flagOf(name)]))
  try {
    const { values } = parseArgs({
      args: [...argv],
      options: { ...options, config: { type: 'string' }, watch: { type: 'boolean' } },
      strict: true,
      allowPositionals: false,
      allowNegative: true,
    })
    const { watch, ...flags } = values
    const texts = Object.entries(flags).map(([flag, value]) => [
      flag,
      typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value),
    ])
    return { ...(watch === true ? { 'model-control': 'watch' } : {}), ...Object.fromEntries(texts) }
  } catch (thrown) {
    throw invalid(`${messageOf(thrown)} (see onecopy serve --help)`)
  }
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
  const unknown = Object.keys(parsed.data).filter((key) => !Object.hasOwn(OPTIONS, key))
  if (unknown.length > 0) {
    throw invalid(
      `--config ${path}: unknown keys ${unknown.join(', ')}; expected some of ${NAMES.join(', ')}`,
    )
  }
  return parsed.data
}

/**
 * Reads the configuration of `onecopy serve`.
 * @throws OnecopyError CONFIG_INVALID listing every value that is not as expected, and where it came from.
 */
export function loadConfig(argv: readonly string[], environment: NodeJS.ProcessEnv = process.env): Config {
  const flags = readFlags(argv)
  const configPath = flags.config ?? environment[environmentName('config')]
  const file = configPath === undefined ? {} : readFile(configPath)
  const values: Record<string, unknown> = {}
  const problems: string[] = []
  for (const name of NAMES) {
    const flag = flags[dashed(name)]
    const variable = environment[environmentName(name)]
    const definition = OPTIONS[name]
    const [value, source] =
      flag !== undefined
        ? [flag, `--${dashed(name)}`]
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

/** The text of `onecopy serve --help`. */
export function serveHelp(): string {
  const lines = [
    'Usage: onecopy serve [options]',
    '',
    'Serves every model of a repository over HTTP from worker processes that hold one physical copy of the weights.',
    'Each option is also an environment variable (ONECOPY_DRAIN_TIMEOUT) and a key of the config file (drainTimeout).',
  ]
  let group = ''
  for (const name of NAMES) {
    const definition = OPTIONS[name]
    if (definition.group !== group) {
      group = definition.group
      lines.push('', `${group}:`)
    }
    const usage = `  --${dashed(name)} ${definition.value}`.padEnd(26)
    const byDefault = 'defaultHelp' in definition ? definition.defaultHelp : definition.default()
    lines.push(`${usage} ${definition.help} [${byDefault}]`)
  }
  lines.push(
    '',
    'Other:',
    '  --watch                  The same as --model-control watch.',
    '  --config FILE            A JSON file of these options; flags and environment win over it.',
    '',
    'TIME is 500ms, 30s, 2m or 1h. SIZE is bytes, or 64KiB, 16MiB, 2GiB.',
  )
  return lines.join('\n')
}
