/**
 * API keys. The server stores only their SHA-256, so a leaked file does not reveal the keys. A fast hash is
 * sufficient because keys are 256 random bits, not passwords that could be guessed.
 *
 * The format is NAME:SHA256:SCOPES, one per line or separated by semicolons; `#` starts a comment.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'

/**
 * `infer`: inference on the public port; `metrics`: /metrics; `admin`: changes of models and workers. No
 * scope implies another.
 */
export const SCOPES = ['infer', 'metrics', 'admin'] as const
export type Scope = (typeof SCOPES)[number]

/** Every request is compared with all keys; use a gateway in front for more. */
const MAX_KEYS = 1024
const KEY_BYTES = 32
/** Lets secret scanners find leaked keys in repositories and logs. */
const KEY_PREFIX = 'onecopy_'

export const ApiKeySchema = z.object({
  /** Identifies the client in logs and rate limits. Keys with the same name count as one client. */
  name: z.string().regex(/^[A-Za-z0-9._@-]{1,64}$/, 'expected a name of letters, digits and . _ @ -'),
  sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/i, 'expected a SHA-256 as 64 hexadecimal digits (onecopy key creates one)'),
  scopes: z.array(z.enum(SCOPES, `expected scopes from ${SCOPES.join(', ')}`)).min(1),
})
export type ApiKey = z.infer<typeof ApiKeySchema>

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}

/** What is kept of the admin token; null where none is asked for. */
export function adminTokenDigest(token: string): string | null {
  return token === '' ? null : sha256(token).toString('hex')
}

/** A new key, to be shown once, and what is kept of it. */
export function createKey(options: { readonly name: string; readonly scopes: readonly Scope[] }): {
  readonly key: string
  readonly entry: ApiKey
} {
  const key = `${KEY_PREFIX}${randomBytes(KEY_BYTES).toString('base64url')}`
  const { name, scopes } = options
  return { key, entry: { name, sha256: sha256(key).toString('hex'), scopes: [...scopes] } }
}

export function formatKey({ name, sha256: digest, scopes }: ApiKey): string {
  return `${name}:${digest}:${scopes.join(',')}`
}

/**
 * Parses key entries; `source` names their origin in errors.
 * @throws OnecopyError CONFIG_INVALID that gives the number of the entry, never its text: it may be a plain
 *   key.
 */
export function parseKeys(text: string, source: string): ApiKey[] {
  const keys: ApiKey[] = []
  const seen = new Set<string>()
  for (const [i, line] of text.split(/[\n;]/).entries()) {
    const entry = line.replace(/#.*$/s, '').trim()
    if (entry === '') continue
    const refuse = (why: string) => new OnecopyError('CONFIG_INVALID', `${source}, entry ${i + 1}: ${why}`)
    const [name, digest, scopes, ...rest] = entry.split(':')
    if (scopes === undefined || rest.length > 0) throw refuse('expected NAME:SHA256:SCOPES')
    const parsed = ApiKeySchema.safeParse({
      name,
      sha256: digest,
      scopes: scopes.split(',').map((scope) => scope.trim()),
    })
    if (!parsed.success) throw refuse(parsed.error.issues.map(({ message }) => message).join('; '))
    const lower = parsed.data.sha256.toLowerCase()
    if (seen.has(lower)) throw refuse('expected distinct keys, got a duplicate')
    seen.add(lower)
    keys.push({ ...parsed.data, sha256: lower })
    if (keys.length > MAX_KEYS) throw refuse(`expected at most ${MAX_KEYS} keys`)
  }
  return keys
}

/** The key of a request: `Authorization: Bearer KEY`, otherwise `X-API-Key: KEY`, otherwise null. */
function presentedKey(headers: IncomingHttpHeaders): string | null {
  const [, bearer] = /^bearer +(\S+) *$/i.exec(headers.authorization ?? '') ?? []
  if (bearer !== undefined) return bearer
  const key = headers['x-api-key']
  return typeof key === 'string' && key !== '' ? key : null
}

/** RFC 6750, section 3: parameters are sent only if the request contained a key. */
function challenge(parameters = ''): { headers: { 'WWW-Authenticate': string } } {
  return { headers: { 'WWW-Authenticate': `Bearer${parameters}` } }
}

interface KnownKey {
  readonly name: string
  readonly digest: Buffer
  readonly scopes: ReadonlySet<Scope>
}

/** The keys that a process accepts. They can be replaced while it serves. */
export class Keyring {
  readonly #adminToken: KnownKey | null
  /** Null: authentication is not configured. An empty list rejects every key. */
  #keys: readonly KnownKey[] | null = null

  /** `adminTokenSha256` is in hexadecimal digits; null: there is none. */
  constructor({
    keys,
    adminTokenSha256 = null,
  }: {
    readonly keys: readonly ApiKey[] | null
    readonly adminTokenSha256?: string | null
  }) {
    this.#adminToken =
      adminTokenSha256 === null
        ? null
        : {
            ...{ name: 'admin-token', scopes: new Set<Scope>(['admin']) },
            digest: Buffer.from(adminTokenSha256, 'hex'),
          }
    this.replace(keys)
  }

  replace(keys: readonly ApiKey[] | null): void {
    this.#keys =
      keys?.map((key) => ({
        name: key.name,
        digest: Buffer.from(key.sha256, 'hex'),
        scopes: new Set(key.scopes),
      })) ?? null
  }

  /** Whether the scope needs no key. */
  isOpen(scope: Scope): boolean {
    return this.#keys === null && (scope !== 'admin' || this.#adminToken === null)
  }

  /**
   * The name of the presented key; null if the scope needs no key.
   * @throws OnecopyError UNAUTHORIZED, FORBIDDEN.
   */
  authorize(headers: IncomingHttpHeaders, scope: Scope): string | null {
    if (this.isOpen(scope)) return null
    const presented = presentedKey(headers)
    if (presented === null) {
      throw new OnecopyError(
        'UNAUTHORIZED',
        'expected a key in Authorization: Bearer KEY or X-API-Key: KEY, got none',
        challenge(),
      )
    }
    const known = this.#find(presented)
    if (known === null) {
      throw new OnecopyError(
        'UNAUTHORIZED',
        'expected a key known to this server, got an unknown one',
        challenge(' error="invalid_token"'),
      )
    }
    if (!known.scopes.has(scope)) {
      throw new OnecopyError(
        'FORBIDDEN',
        `expected a key with the scope ${scope}, got one with ${[...known.scopes].join(', ')}`,
        challenge(` error="insufficient_scope", scope="${scope}"`),
      )
    }
    return known.name
  }

  /** Compares with every key, so that the duration does not reveal which one matched. */
  #find(presented: string): KnownKey | null {
    const digest = sha256(presented)
    let found: KnownKey | null = null
    for (const key of this.#keys ?? []) if (timingSafeEqual(key.digest, digest)) found = key
    if (this.#adminToken !== null && timingSafeEqual(this.#adminToken.digest, digest))
      found = this.#adminToken
    return found
  }
}
