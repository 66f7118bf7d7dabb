/** Checks before a measurement that all variants return the same outputs. */
import { Agent } from 'node:http'
import * as z from 'zod'
import { type Answer, send } from './client.js'
import type { InferRequest } from './requests.js'
import type { RunningServer } from './servers.js'

/** Rounding depends on the batch; a wrong output differs by far more. */
const ABSOLUTE_TOLERANCE = 1e-4
const RELATIVE_TOLERANCE = 1e-3

const ResponseSchema = z.object({
  outputs: z.array(z.object({ name: z.string(), data: z.array(z.number()).optional() })).length(1),
})

export function outputOf({ status, headers, body }: Answer): readonly number[] {
  if (status !== 200) throw new Error(`expected status 200, got ${status}: ${body.toString()}`)
  const jsonBytes = headers['inference-header-content-length']
  if (jsonBytes === undefined) return ResponseSchema.parse(JSON.parse(body.toString())).outputs[0]?.data ?? []
  const raw = body.subarray(Number(jsonBytes))
  return Array.from(new Float32Array(Uint8Array.from(raw).buffer))
}

function isClose(a: number, b: number): boolean {
  return Math.abs(a - b) <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * Math.max(Math.abs(a), Math.abs(b))
}

export function isSameOutput(expected: readonly number[], got: readonly number[]): boolean {
  return (
    got.length > 0 &&
    got.length === expected.length &&
    got.every((value, i) => isClose(value, expected[i] ?? Number.NaN))
  )
}

/** @throws Error with the servers whose outputs differ. */
export async function verifySameAnswers(
  servers: readonly RunningServer[],
  requests: readonly InferRequest[],
): Promise<void> {
  const agent = new Agent({ keepAlive: true })
  try {
    for (const request of requests) {
      let expected: readonly number[] | undefined
      for (const server of servers) {
        const got = outputOf(await send({ agent, port: server.port, request }))
        expected ??= got
        if (!isSameOutput(expected, got)) {
          throw new Error(
            `${server.name} returned ${got.join(' ')}, ${servers[0]?.name} ${expected.join(' ')}`,
          )
        }
      }
    }
  } finally {
    agent.destroy()
  }
}
