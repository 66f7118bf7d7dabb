/** A request on a separate connection, with its worker and its outcome. */
import { Agent, request } from 'node:http'
import type { Socket } from 'node:net'
import { ownerOf } from '../../bench/harness/connections.js'
import { encodeRequest, type WireTensor } from '../helpers/v2-client.js'

const TIMEOUT_MS = 60_000

/** `answered` means correct values; `wrong` and `hung` are never allowed. */
export type RequestEnd = 'answered' | 'refused' | 'cut off' | 'wrong' | 'hung'

export interface HeldRequest {
  readonly end: Promise<RequestEnd>
  readonly hasEnded: boolean
  /** Pid of the worker that has the connection; null before it is accepted and after it is closed. */
  ownerPid(workerPids: readonly number[]): number | null
}

export interface RequestOptions {
  readonly url: string
  readonly model: string
  readonly inputs: readonly WireTensor[]
  /** The bytes of the output. */
  readonly expected: Uint8Array
}

export function holdRequest({ url, model, inputs, expected }: RequestOptions): HeldRequest {
  const { body, headers } = encodeRequest(inputs, 'binary')
  const agent = new Agent({ keepAlive: false })
  let socket: Socket | undefined
  const end = new Promise<RequestEnd>((resolve) => {
    const call = request(
      `${url}/v2/models/${model}/infer`,
      { method: 'POST', agent, headers: { ...headers, 'Content-Length': body.length }, timeout: TIMEOUT_MS },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', () => resolve('cut off'))
        response.on('end', () => {
          if (response.statusCode === 503) return resolve('refused')
          const jsonBytes = Number(response.headers['inference-header-content-length'])
          const isRight =
            response.statusCode === 200 && Buffer.concat(chunks).subarray(jsonBytes).equals(expected)
          resolve(isRight ? 'answered' : 'wrong')
        })
      },
    )
    call.on('socket', (used) => {
      socket = used
    })
    call.on('timeout', () => {
      resolve('hung')
      call.destroy()
    })
    call.on('error', () => resolve('cut off'))
    call.end(body)
  })
  let hasEnded = false
  void end.then(() => {
    hasEnded = true
  })
  return {
    end,
    get hasEnded() {
      return hasEnded
    },
    ownerPid: (workerPids) => {
      const port = Number(new URL(url).port)
      return socket?.localPort === undefined ? null : ownerOf({ port, workerPids }, socket.localPort)
    },
  }
}
