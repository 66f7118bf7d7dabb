/** `onecopy key`: makes an API key, and says what to put into the file of keys. */
import { parseArgs } from 'node:util'
import { ApiKeySchema, createKey, formatKey, SCOPES } from '../../src/access/api-keys.js'
import { messageOf } from '../../src/errors.js'
import { usageError } from './arguments.js'

export const KEY_HELP = `Usage: onecopy key NAME [--scopes SCOPES]

Makes an API key. It is printed once and kept nowhere; the line that it is known by goes into the file that
serve is given by --api-keys-file, which may be done while it serves:

  onecopy key alice --scopes infer 2>>keys

Where they are not a terminal, standard output is the key alone and standard error the line for the file.

Options:
  --scopes SCOPES  Some of ${SCOPES.join(', ')}, separated by commas [infer]
                   infer: the public port; metrics: /metrics; admin: models and workers are changed.

Clients send it as Authorization: Bearer KEY or as X-API-Key: KEY.`

export async function runKey(argv: readonly string[]): Promise<number> {
  let parsed: { values: { scopes?: string }; positionals: string[] }
  try {
    parsed = parseArgs({
      args: [...argv],
      options: { scopes: { type: 'string' } },
      strict: true,
      allowPositionals: true,
    })
  } catch (thrown) {
    throw usageError(messageOf(thrown), 'key')
  }
  const [name, ...others] = parsed.positionals
  if (name === undefined || others.length > 0)
    throw usageError(`expected one name, got ${parsed.positionals.length}`, 'key')
  const wanted = ApiKeySchema.pick({ name: true, scopes: true }).safeParse({
    name,
    scopes: (parsed.values.scopes ?? 'infer').split(','),
  })
  if (!wanted.success) throw usageError(wanted.error.issues.map(({ message }) => message).join('; '), 'key')
  const { key, entry } = createKey(wanted.data)
  const isForPeople = process.stdout.isTTY && process.stderr.isTTY
  process.stderr.write(`${isForPeople ? 'line for --api-keys-file:  ' : ''}${formatKey(entry)}\n`)
  process.stdout.write(`${isForPeople ? 'key, shown this once:      ' : ''}${key}\n`)
  return 0
}
