/**
 * TLS of a serving process: the material crosses to it as text, so that a process which starts while a bad file
 * lies on the disk serves with the last good one, like those that run.
 */
import { randomBytes, X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { z } from 'zod'
import { messageOf, OnecopyError } from '../errors.js'

/** What Node takes: 16 bytes of name, 16 of HMAC key, 16 of AES key. */
const TICKET_KEY_BYTES = 48

export const TlsMaterialSchema = z.object({
  /** PEM. */
  cert: z.string(),
  key: z.string(),
  /** PEM of those who sign certificates of clients; null: clients need none. */
  ca: z.string().nullable(),
  /** Base64; the same in all workers, so that a session goes on at whichever takes the next connection. */
  ticketKeys: z.string(),
})
export type TlsMaterial = z.infer<typeof TlsMaterialSchema>

/** What a connection is made with; `setSecureContext` takes the same. */
export function secureContextOptions({ cert, key, ca, ticketKeys }: TlsMaterial): SecureContextOptions {
  return {
    cert,
    key,
    // RFC 8996: earlier versions are not to be used.
    minVersion: 'TLSv1.2',
    ticketKeys: Buffer.from(ticketKeys, 'base64'),
    ...(ca === null ? {} : { ca }),
  }
}

/**
 * The same with sessions of its own. A session that is resumed is not asked for a certificate again, so servers
 * that ask for different ones must not share any.
 */
export function withOwnSessions(pem: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>): TlsMaterial {
  return { ...pem, ticketKeys: randomBytes(TICKET_KEY_BYTES).toString('base64') }
}

/**
 * Material that has been tried; sessions of earlier material end with it.
 * @throws OnecopyError CONFIG_INVALID: no PEM, a key of another certificate.
 */
export function tlsMaterial(pem: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>): TlsMaterial {
  const material = withOwnSessions(pem)
  try {
    createSecureContext(secureContextOptions(material))
    // A context takes an empty CA without a word, and then trusts nobody.
    if (pem.ca !== null) new X509Certificate(pem.ca)
    new X509Certificate(pem.cert)
  } catch (thrown) {
    throw new OnecopyError(
      'CONFIG_INVALID',
      `--tls-cert, --tls-key, --tls-ca: expected PEM files that belong together: ${messageOf(thrown)}`,
      { cause: thrown },
    )
  }
  return material
}

/** Until when the certificate is valid, as a Unix timestamp in seconds. */
export function expirySeconds({ cert }: Pick<TlsMaterial, 'cert'>): number {
  return Date.parse(new X509Certificate(cert).validTo) / 1000
}
