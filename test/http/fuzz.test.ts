/**
 * Random requests over real connections, some of them valid. Every request is answered, never with
 * a server error, every valid one with its own values, and no worker ends. There are 20,000, the
 * same in every run, so that failures point to changes; `ONECOPY_FUZZ_REQUESTS=200000 npx ava
 * dist/test/http/fuzz.test.js` sends more, different in each run, and `ONECOPY_FUZZ_SEED` repeats a
 * run.
 */
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { gunzipSync, inflateSync } from 'node:zlib'
import test from 'ava'
import fc from 'fast-check'
import { childrenOf, isWorker } from '../../bench/harness/processes.js'
import { readProcessMemory } from '../../src/process/memory.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { type FuzzRequest, fuzzRequest } from './fuzz-requests.js'

const { ONECOPY_FUZZ_REQUESTS, ONECOPY_FUZZ_SEED } = process.env
const REQUESTS = Number(ONECOPY_FUZZ_REQUESTS ?? 20_000)
const SEED = Number(ONECOPY_FUZZ_SEED ?? (ONECOPY_FUZZ_REQUESTS === undefined ? 1 : Date.now() % 2 ** 31))
const CONNECTIONS = 16
/** Requests generated at a time, so that a long run needs no more memory than a short one. */
const PORTION = 2000
const ANSWER_TIMEOUT_MS = 30_000
/** Statuses of client errors. 503 and 500 would be faults of the server. */
const STATUSES = new Set([200, 204, 302, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 431, 501, 504])
/**
 * Permitted growth of a worker over all requests, after each kind has occurred: caches and arenas,
 * not a leak.
 */
const GROWTH_BYTES = 40e6

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: Buffer
}

function send(url: string, agent: Agent, { method, path, headers, body }: FuzzRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url)
    const timer = setTimeout(() => outgoing.destroy(new Error('no answer')), ANSWER_TIMEOUT_MS)
    const outgoing = httpRequest(
      { hostname, port, method, path, agent, headers: { ...headers, 'Content-Length': body.byteLength } },
      (incoming) => {
        const chunks: Buffer[] = []
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk))
        incoming.on('error', reject)
        incoming.on('end', () => {
          clearTimeout(timer)
          resolve({
            status: incoming.statusCode ?? 0,
            headers: incoming.headers,
            body: Buffer.concat(chunks),
          })
        })
      },
    )
    outgoing.on('error', (thrown) => {
      clearTimeout(timer)
      reject(thrown)
    })
    outgoing.end(body)
  })
}

function inflated({ headers, body }: Answer): Buffer {
  const encoding = headers['content-encoding']
  if (encoding === 'gzip') return gunzipSync(body)
  return encoding === 'deflate' ? inflateSync(body) : body
}

function valuesOf(answer: Answer): number[] {
  const body = inflated(answer)
  const jsonBytes = answer.headers['inference-header-content-length']
  if (jsonBytes === undefined) {
    return (JSON.parse(body.toString('utf8')) as { outputs: { data: number[] }[] }).outputs[0]?.data ?? []
  }
  return [...new Float32Array(Uint8Array.from(body.subarray(Number(jsonBytes))).buffer)]
}

/** The problem of a response; null if there is none. */
function problemOf(request: FuzzRequest, answer: Answer): string | null {
  const { status } = answer
  if (!STATUSES.has(status)) return `status ${status}: ${inflated(answer).toString('utf8').slice(0, 300)}`
  if (request.expected !== null) {
    if (status !== 200) return `a valid request was rejected: ${status} ${inflated(answer).toString('utf8')}`
    const values = valuesOf(answer)
    if (values.join() !== request.expected.join()) return `the values of another request: ${values}`
    return null
  }
  if (status < 400 || request.method === 'HEAD') return null
  const text = inflated(answer).toString('utf8')
  const { error } = JSON.parse(text) as { error?: unknown }
  if (typeof error !== 'string' || error === '') return `an error without a message: ${text}`
  // A path of the server, or a line of a stack.
  if (/\bat .*\(.*:\d+:\d+\)|node_modules|\/dist\//.test(text))
    return `the response discloses internals: ${text}`
  return null
}

async function privateBytes(pids: readonly number[]): Promise<number[]> {
  return await Promise.all(pids.map(async (pid) => (await readProcessMemory(pid))?.privateBytes ?? 0))
}

test('every random request is answered, valid ones correctly, and the server stays healthy', async (t) => {
  t.timeout(3_600_000)
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '2'] })
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  t.teardown(() => agent.destroy())
  const statuses = new Map<number, number>()
  const problems: string[] = []
  const pids = childrenOf(server.process.pid as number)
    .filter(isWorker)
    .map(({ pid }) => pid)
  let early: number[] | undefined
  for (let from = 0; from < REQUESTS; from += PORTION) {
    const count = Math.min(PORTION, REQUESTS - from)
    const portion = fc.sample(fuzzRequest, { seed: SEED + from, numRuns: count })
    let next = 0
    const lane = async () => {
      for (let i = next++; i < portion.length; i = next++) {
        const request = portion[i] as FuzzRequest
        const answer = await send(url, agent, request).catch((thrown: Error) => thrown)
        const problem = answer instanceof Error ? `no answer: ${answer.message}` : problemOf(request, answer)
        if (!(answer instanceof Error)) statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        if (problem !== null) {
          const text = Buffer.from(request.body).toString('latin1').slice(0, 400)
          problems.push(`${problem}\n${JSON.stringify({ ...request, body: text })}`)
        }
      }
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, lane))
    if (problems.length > 10) break
    if (from >= REQUESTS / 2) early ??= await privateBytes(pids)
  }
  t.deepEqual(problems.slice(0, 5), [], `seed ${SEED}`)
  t.deepEqual(
    server.log.filter(({ level }) => level === 'error' || level === 'fatal'),
    [],
    'the server logged no error of its own',
  )
  t.deepEqual(
    childrenOf(server.process.pid as number)
      .filter(isWorker)
      .map(({ pid }) => pid),
    pids,
    'no worker was replaced',
  )
  const late = await privateBytes(pids)
  for (const [i, bytes] of late.entries())
    t.true(
      bytes - (early?.[i] ?? bytes) < GROWTH_BYTES,
      `a process grew from ${early?.[i]} to ${bytes} bytes`,
    )
  t.true((statuses.get(200) ?? 0) > REQUESTS / 5, 'enough requests are valid')
  t.log(`${REQUESTS} requests, seed ${SEED}: ${JSON.stringify(Object.fromEntries([...statuses].sort()))}`)
  await stopCleanly(t, server)
})
