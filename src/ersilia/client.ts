/** POST /run over the Unix socket of a resident server, for short-lived processes. */
import { type IncomingMessage, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import * as z from 'zod'
import { type ErrorCode, isErrorCode, OnecopyError } from '../errors.js'
import type { Row } from './orient.js'
import type { PredictOptions } from './predictor.js'

/** Molecules per request: about a second of work, for progress reports and short requests. */
const CHUNK = 2000
/** Requests are retried while the server is busy or replaces a worker. */
const BUSY_TRIES = 20
const MAX_BUSY_WAIT_MS = 1000
const ASK_TIMEOUT_MS = 10 * 60_000

const SplitSchema = z.object({
  columns: z.array(z.string()),
  data: z.array(z.array(z.union([z.number(), z.string(), z.null()]))),
})
const ErrorSchema = z.object({ detail: z.string().optional(), error: z.string().optional() })

interface Answer {
  readonly status: number
  readonly text: string
  readonly code: string | undefined
  readonly retryAfterMs: number
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

/** @throws A system error such as ECONNREFUSED if the server cannot be reached. */
function ask(
  socketPath: string,
  { method, path, body }: { method: 'GET' | 'POST'; path: string; body?: string },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath, method, path, timeout: ASK_TIMEOUT_MS }, (response) => {
      textOf(response).then((text) => {
        const code = response.headers['x-error-code']
        resolve({
          status: response.statusCode ?? 0,
          text,
          code: typeof code === 'string' ? code : undefined,
          retryAfterMs: Number(response.headers['retry-after'] ?? 0) * 1000,
        })
      }, reject)
    })
    asking.on('timeout', () => asking.destroy(new Error('the server did not answer')))
    asking.on('error', reject)
    asking.end(body)
  })
}

function errorIn(text: string): z.output<typeof ErrorSchema> | undefined {
  try {
    return ErrorSchema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

async function patiently(socketPath: string, what: Parameters<typeof ask>[1]): Promise<string> {
  for (let tries = 1; ; tries++) {
    const { status, text, code, retryAfterMs } = await ask(socketPath, what)
    if (status === 200) return text
    if (status === 503 && tries < BUSY_TRIES) {
      await delay(Math.min(Math.max(retryAfterMs, 50), MAX_BUSY_WAIT_MS))
      continue
    }
    const received = errorIn(text)
    const known: ErrorCode = code !== undefined && isErrorCode(code) ? code : 'MODEL_RUN_FAILED'
    throw new OnecopyError(
      known,
      received?.detail ?? received?.error ?? `the server responded with status ${status}`,
    )
  }
}

export interface Answered {
  readonly columns: readonly string[]
  readonly rows: readonly Row[]
}

/**
 * Predicts with a resident server.
 * @throws OnecopyError of the server, and system errors if it cannot be reached.
 */
export async function predictOverSocket(
  socketPath: string,
  inputs: readonly string[],
  { onProgress }: PredictOptions = {},
): Promise<Answered> {
  if (inputs.length === 0) {
    const text = await patiently(socketPath, { method: 'GET', path: '/run/columns/output' })
    return { columns: z.array(z.string()).parse(JSON.parse(text)), rows: [] }
  }
  const rows: Row[] = []
  let columns: readonly string[] = []
  for (let from = 0; from < inputs.length; from += CHUNK) {
    const body = JSON.stringify(inputs.slice(from, from + CHUNK))
    const text = await patiently(socketPath, { method: 'POST', path: '/run?orient=split', body })
    const { columns: names, data } = SplitSchema.parse(JSON.parse(text))
    const asked = Math.min(CHUNK, inputs.length - from)
    if (data.length !== asked)
      throw new OnecopyError('MODEL_RUN_FAILED', `expected ${asked} rows, the server returned ${data.length}`)
    columns = names
    for (const row of data) rows.push(row)
    onProgress?.(rows.length)
  }
  return { columns, rows }
}
