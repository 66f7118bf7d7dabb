/**
 * Checks all responses to clients in a test, through fetch and node:http, without changes to the
 * test.
 */
import { subscribe } from 'node:diagnostics_channel'
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Port } from '../../src/api/document.js'
import { answerProblem, prepareChecks } from './api-check.js'

/** Servers started by the test, by `http://HOST:PORT`. */
const watched = new Map<string, { readonly port: Port }>()
/** Problems of node:http responses, by server: their readers may swallow errors. */
const problems = new Map<string, string>()

let isWatching = false

function watchFetch(): void {
  const { fetch } = globalThis
  globalThis.fetch = async (input, init) => {
    const response = await fetch(input, init)
    const { origin, pathname } = new URL(response.url)
    const port = watched.get(origin)?.port
    if (port === undefined) return response
    let body: Uint8Array
    try {
      body = new Uint8Array(await response.clone().arrayBuffer())
    } catch {
      // A truncated response: the reader gets the error.
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

function check(origin: string, port: Port, { request, response }: Exchange, body: Uint8Array): void {
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
    const port = watched.get(origin)?.port
    if (port === undefined) return
    const chunks: Buffer[] = []
    // Copies what the parser pushes to the reader, and consumes nothing.
    const push = response.push.bind(response)
    response.push = (chunk: Buffer | null) => {
      if (chunk !== null) chunks.push(chunk)
      // After the reader, which may be time-critical.
      else if (response.complete) setImmediate(() => check(origin, port, exchange, Buffer.concat(chunks)))
      return push(chunk)
    }
  })
}

/**
 * Starts to check every response of this port against the OpenAPI document. To be ended with the
 * returned function when the server has exited, because another program may get the same port.
 */
export function watchAnswers(origin: string, port: Port): () => void {
  if (!isWatching) {
    isWatching = true
    watchFetch()
    watchHttpClient()
  }
  if (![...watched.values()].some((one) => one.port === port)) prepareChecks(port)
  const watch = { port }
  watched.set(origin, watch)
  return () => {
    if (watched.get(origin) === watch) watched.delete(origin)
  }
}

/**
 * @throws Error if a node:http response did not match the document. To be called at the end of a
 *   test.
 */
export function assertAnswersWereRight(origin: string): void {
  const problem = problems.get(origin)
  if (problem !== undefined) throw new Error(problem)
}
