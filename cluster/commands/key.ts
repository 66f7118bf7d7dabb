/** `onecopy key`: makes an API key, and says what to put into the file of keys. */
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
  const isForPeople = process.stdout.isTTY && process.stderr.isTTY
  process.stderr.write(`${isForPeople ? 'line for --api-keys-file:  ' : ''}${formatKey(entry)}\n`)
  process.stdout.write(`${isForPeople ? 'key, shown this once:      ' : ''}${key}\n`)
  return 0
}
