/** Sends one request over node:http. */
import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { InferRequest } from './requests.js'

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
  /** The client's port, which identifies the connection. */
  readonly localPort: number
}

const TIMEOUT_MS = 30_000

export function send(options: {
  readonly agent: Agent
  readonly port: number
  readonly request: InferRequest
  /** Called with the socket as soon as the request has one. */
  readonly onSocket?: (socket: Socket) => void
}): Promise<Answer> {
  const { agent, port, request, onSocket } = options
  const { method, path, headers, body } = request
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest(
      {
        agent,
        host: '127.0.0.1',
        port,
        method,
        path,
        headers: { ...headers, 'Content-Length': body.length },
        timeout: TIMEOUT_MS,
      },
      (incoming) => {
        const chunks: Buffer[] = []
        const { localPort = 0 } = incoming.socket as Socket
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () =>
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: Buffer.concat(chunks),
            localPort,
          }),
        )
      },
    )
    if (onSocket !== undefined) outgoing.on('socket', onSocket)
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no response within ${TIMEOUT_MS} ms`)))
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}
