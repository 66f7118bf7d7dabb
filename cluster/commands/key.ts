/** `onecopy key`: creates an API key and prints the line for the file of keys. */
import { ApiKeySchema, createKey, formatKey } from '../../src/access/api-keys.js'
import { commandLine, usageError } from './arguments.js'

export async function runKey(argv: readonly string[]): Promise<number> {
  const { values, positionals } = commandLine('key', argv)
  const [name, ...others] = positionals
  if (name === undefined || others.length > 0)
    throw usageError(`expected one name, got ${positionals.length}`, 'key')
  const wanted = ApiKeySchema.pick({ name: true, scopes: true }).safeParse({
    name,
    scopes: (values.scopes ?? 'infer').split(','),
  })
  if (!wanted.success) throw usageError(wanted.error.issues.map(({ message }) => message).join('; '), 'key')
  const { key, entry } = createKey(wanted.data)
  const isTerminal = process.stdout.isTTY && process.stderr.isTTY
  process.stderr.write(`${isTerminal ? 'line for --api-keys-file:  ' : ''}${formatKey(entry)}\n`)
  process.stdout.write(`${isTerminal ? 'key, shown only once:      ' : ''}${key}\n`)
  return 0
}
