/** Watches what a test's clients are answered, without a word from them: fetch and node:http alike. */
import { subscribe } from 'node:diagnostics_channel'
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Port } from '../../src/api/document.js'
import { answerProblem, prepareChecks } from './api-check.js'

/** The servers that a test has started, by `http://HOST:PORT`. */
const watched = new Map<string, Port>()
/** What was wrong with answers to node:http, by server: its readers may swallow errors. */
const problems = new Map<string, string>()

function watchFetch(): void {
  const { fetch } = globalThis
  globalThis.fetch = async (input, init) => {
    const response = await fetch(input, init)
    const { origin, pathname } = new URL(response.url)
    const port = watched.get(origin)
    if (port === undefined) return response
    let body: Uint8Array
    try {
      body = new Uint8Array(await response.clone().arrayBuffer())
    } catch {
      // Cut off on the way: whoever reads it is told.
      return response
    }
    const { 'content-encoding': _undone, ...headers } = Object.fromEntries(response.headers)
    const method = init?.method ?? (input instanceof Request ? input.method : 'GET')
    const problem = answerProblem({ method, path: pathname, status: response.status, headers, body }, port)
    if (problem !== null) throw new Error(problem)
    return response
  }
}

interface Exchange {
  readonly request: ClientRequest
  readonly response: IncomingMessage
}

function check(origin: string, { request, response }: Exchange, body: Uint8Array): void {
  const port = watched.get(origin) as Port
  const { method, path } = request
  const headers = response.headers as Record<string, string>
  const problem = answerProblem({ method, path, status: response.statusCode ?? 0, headers, body }, port)
  if (problem !== null) problems.set(origin, problem)
}

function watchHttpClient(): void {
  subscribe('http.client.response.finish', (message) => {
    const exchange = message as Exchange
    const { request, response } = exchange
    const origin = `http://${request.getHeader('host')}`
    if (!watched.has(origin)) return
    const chunks: Buffer[] = []
    // What the parser pushes is what the reader gets: nothing is consumed here.
    const push = response.push.bind(response)
    response.push = (chunk: Buffer | null) => {
      if (chunk !== null) chunks.push(chunk)
      // After the reader, which may be in a hurry.
      else if (response.complete) setImmediate(() => check(origin, exchange, Buffer.concat(chunks)))
      return push(chunk)
    }
  })
}

/** From here on every answer of that port is held to the OpenAPI document. */
export function watchAnswers(origin: string, port: Port): void {
  if (watched.size === 0) {
    watchFetch()
    watchHttpClient()
  }
  if (![...watched.values()].includes(port)) prepareChecks(port)
  watched.set(origin, port)
}

/** @throws Error where one of the answers to node:http was not as the document says; to be asked at the end of a test. */
export function assertAnswersWereRight(origin: string): void {
  const problem = problems.get(origin)
  if (problem !== undefined) throw new Error(problem)
}
