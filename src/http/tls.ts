/**
 * TLS of a serving process. Certificates are passed to it as text, so that a process that starts while a file
 * on the disk is invalid uses the last valid one, like the running processes.
 */
import { randomBytes, X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'

/** Format of Node: 16 bytes of name, 16 of HMAC key, 16 of AES key. */
const TICKET_KEY_BYTES = 48

export const TlsMaterialSchema = z.object({
  /** PEM. */
  cert: z.string(),
  key: z.string(),
  /** PEM of the client CA; null if clients need no certificate. */
  ca: z.string().nullable(),
  /** Base64; the same in all workers, so that a session can be resumed in any of them. */
  ticketKeys: z.string(),
})
export type TlsMaterial = z.infer<typeof TlsMaterialSchema>

/** Options of new connections, also for `setSecureContext`. */
export function secureContextOptions({ cert, key, ca, ticketKeys }: TlsMaterial): SecureContextOptions {
  return {
    cert,
    key,
    // RFC 8996: earlier versions must not be used.
    minVersion: 'TLSv1.2',
    ticketKeys: Buffer.from(ticketKeys, 'base64'),
    ...(ca === null ? {} : { ca }),
  }
}

/**
 * The same with separate sessions. A resumed session is not asked for a client certificate again, so servers
 * with different requirements must not share sessions.
 */
export function withOwnSessions(pem: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>): TlsMaterial {
  return { ...pem, ticketKeys: randomBytes(TICKET_KEY_BYTES).toString('base64') }
}

/**
 * Validated certificates and keys. A change invalidates earlier sessions.
 * @throws OnecopyError CONFIG_INVALID: no PEM, a key of another certificate.
 */
export function tlsMaterial(pem: Pick<TlsMaterial, 'cert' | 'key' | 'ca'>): TlsMaterial {
  const material = withOwnSessions(pem)
  try {
    createSecureContext(secureContextOptions(material))
    // A context accepts an empty CA silently, and then rejects every client.
    if (pem.ca !== null) new X509Certificate(pem.ca)
    new X509Certificate(pem.cert)
  } catch (thrown) {
    throw new OnecopyError(
      'CONFIG_INVALID',
      `--tls-cert, --tls-key, --tls-ca: expected matching PEM files: ${messageOf(thrown)}`,
      { cause: thrown },
    )
  }
  return material
}

/** Expiry of the certificate, as a Unix timestamp in seconds. */
export function expirySeconds({ cert }: Pick<TlsMaterial, 'cert'>): number {
  return Date.parse(new X509Certificate(cert).validTo) / 1000
}
