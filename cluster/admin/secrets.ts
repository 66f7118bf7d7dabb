/**
 * API keys and certificates. The primary reads and validates them, sends them to every worker, and
 * reads them again when the files change or on SIGHUP. Invalid content is logged once and changes
 * nothing. New workers get the current secrets.
 */
import { type ApiKey, adminTokenDigest, Keyring, parseKeys } from '../../src/access/api-keys.js'
import { readSecretFile, watchSecretFiles } from '../../src/access/secret-files.js'
import type { Config } from '../../src/config/config.js'
import { messageOf } from '../../src/errors.js'
import { expirySeconds, type TlsMaterial, tlsMaterial, withOwnSessions } from '../../src/http/tls.js'
import type { Log } from '../../src/log.js'
import type { SecretsMessage } from '../messages.js'

type SecretsConfig = Pick<
  Config,
  'adminToken' | 'apiKeysFile' | 'apiKeys' | 'tlsCertPath' | 'tlsKeyPath' | 'tlsCaPath' | 'adminTls'
>

async function readKeys({ apiKeysFile, apiKeys }: SecretsConfig): Promise<ApiKey[] | null> {
  if (apiKeysFile === '' && apiKeys === '') return null
  const inPlace = parseKeys(apiKeys, '--api-keys')
  if (apiKeysFile === '') return inPlace
  const option = '--api-keys-file'
  return [...inPlace, ...parseKeys(await readSecretFile(apiKeysFile, option), `${option} ${apiKeysFile}`)]
}

type Pem = Pick<TlsMaterial, 'cert' | 'key' | 'ca'>

async function readPem({ tlsCertPath, tlsKeyPath, tlsCaPath }: SecretsConfig): Promise<Pem | null> {
  if (tlsCertPath === '') return null
  return {
    cert: await readSecretFile(tlsCertPath, '--tls-cert'),
    key: await readSecretFile(tlsKeyPath, '--tls-key'),
    ca: tlsCaPath === '' ? null : await readSecretFile(tlsCaPath, '--tls-ca'),
  }
}

function samePem(a: Pem, b: Pem): boolean {
  return a.cert === b.cert && a.key === b.key && a.ca === b.ca
}

export interface SecretsOptions {
  readonly config: SecretsConfig
  readonly log: Log
  readonly onRenewed: (secrets: SecretsMessage) => void
}

export class Secrets {
  /** Keys for the admin port of the primary. */
  readonly keyring: Keyring
  readonly #options: SecretsOptions
  readonly #endWatch: () => void
  #current: SecretsMessage
  /** Serializes reads. */
  #last: Promise<void> = Promise.resolve()

  private constructor(options: SecretsOptions, current: SecretsMessage) {
    this.#options = options
    this.#current = current
    this.keyring = new Keyring({
      keys: current.apiKeys,
      adminTokenSha256: adminTokenDigest(options.config.adminToken),
    })
    const { apiKeysFile, tlsCertPath, tlsKeyPath, tlsCaPath } = options.config
    const paths = [apiKeysFile, tlsCertPath, tlsKeyPath, tlsCaPath].filter((path) => path !== '')
    this.#endWatch = watchSecretFiles(paths, () => void this.reload())
    this.#warnOfExpiry()
  }

  /** @throws OnecopyError CONFIG_INVALID. */
  static async read(options: SecretsOptions): Promise<Secrets> {
    const apiKeys = await readKeys(options.config)
    const pem = await readPem(options.config)
    return new Secrets(options, { apiKeys, tls: pem && tlsMaterial(pem) })
  }

  get current(): SecretsMessage {
    return this.#current
  }

  /** TLS material of the admin port; null for plain HTTP. */
  get adminTls(): TlsMaterial | null {
    const { tls } = this.#current
    const { adminTls } = this.#options.config
    if (tls === null || adminTls === 'off') return null
    return withOwnSessions({ ...tls, ca: adminTls === 'mutual' ? tls.ca : null })
  }

  /** Expiry time of the current certificate, as a Unix timestamp; null without one. */
  get certificateExpirySeconds(): number | null {
    return this.#current.tls && expirySeconds(this.#current.tls)
  }

  /** Reads all secrets again. Invalid ones are logged and stay unchanged. */
  reload(): Promise<void> {
    this.#last = this.#last.then(async () => {
      const before = this.#current
      await this.#try('API keys', async () => {
        const apiKeys = await readKeys(this.#options.config)
        if (JSON.stringify(apiKeys) === JSON.stringify(this.#current.apiKeys)) return false
        this.#current = { ...this.#current, apiKeys }
        this.keyring.replace(apiKeys)
        return true
      })
      await this.#try('certificate', async () => {
        const pem = await readPem(this.#options.config)
        const { tls } = this.#current
        if (pem === null || tls === null || samePem(pem, tls)) return false
        this.#current = { ...this.#current, tls: tlsMaterial(pem) }
        this.#warnOfExpiry()
        return true
      })
      if (this.#current !== before) this.#options.onRenewed(this.#current)
    })
    return this.#last
  }

  async #try(what: string, renew: () => Promise<boolean>): Promise<void> {
    const { log } = this.#options
    try {
      if (await renew()) log.info({ what }, `renewed: ${what}`)
    } catch (thrown) {
      log.error({ what, reason: messageOf(thrown) }, `not renewed, the previous ones stay in use: ${what}`)
    }
  }

  #warnOfExpiry(): void {
    const expiry = this.certificateExpirySeconds
    if (expiry === null || expiry * 1000 > Date.now()) return
    this.#options.log.warn(
      { expired: new Date(expiry * 1000).toISOString() },
      'the certificate has expired: clients will refuse it',
    )
  }

  close(): void {
    this.#endWatch()
  }
}
