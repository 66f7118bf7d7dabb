/** Test certificates, and requests by clients that trust them. */
import { randomUUID } from 'node:crypto'
import { type ClientRequestArgs, request as plainRequest } from 'node:http'
import { type RequestOptions, request as tlsRequest } from 'node:https'
import type { TLSSocket } from 'node:tls'
import { generate } from 'selfsigned'

export interface Certificate {
  readonly cert: string
  readonly key: string
}

const DAY_MS = 24 * 60 * 60 * 1000

/** A certificate for localhost and 127.0.0.1, signed by `issuer` or self-signed. */
export async function makeCertificate(
  options: {
    readonly name?: string
    readonly issuer?: Certificate
    readonly isCa?: boolean
    readonly days?: number
  } = {},
): Promise<Certificate> {
  // Names differ, because certificate authorities are found by name.
  const { name = `server ${randomUUID()}`, issuer, isCa = false, days = 2 } = options
  const { cert, private: key } = await generate([{ name: 'commonName', value: name }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notBeforeDate: new Date(Date.now() - DAY_MS),
    notAfterDate: new Date(Date.now() + days * DAY_MS),
    ...(issuer === undefined ? {} : { ca: issuer }),
    extensions: [
      { name: 'basicConstraints', cA: isCa, critical: true },
      {
        name: 'subjectAltName',
        altNames: [
          { type: 2, value: 'localhost' },
          { type: 7, ip: '127.0.0.1' },
        ],
      },
    ],
  })
  return { cert, key }
}

export interface Answer {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: string
  /** Serial number of the server certificate. */
  readonly serial: string | undefined
  /** Whether an earlier session was resumed. */
  readonly isResumed: boolean
}

/** Sends one request, over TLS for https. Rejects with the error of the connection. */
export function ask(
  url: string,
  {
    body,
    ...options
  }: RequestOptions &
    ClientRequestArgs & { readonly body?: string | undefined; readonly session?: Buffer } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const send = url.startsWith('https:') ? tlsRequest : plainRequest
    const call = send(
      url,
      { agent: false, method: body === undefined ? 'GET' : 'POST', ...options },
      (response) => {
        const socket = response.socket as unknown as Partial<
          Pick<TLSSocket, 'getPeerCertificate' | 'isSessionReused'>
        >
        const serial = socket.getPeerCertificate?.().serialNumber
        const isResumed = socket.isSessionReused?.() === true
        let text = ''
        response.setEncoding('utf8').on('data', (piece: string) => {
          text += piece
        })
        response.on('error', reject)
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: text,
            serial,
            isResumed,
          }),
        )
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}
