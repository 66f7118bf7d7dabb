/**
 * Responses to clients whose connection fails before a route can answer: malformed bytes, headers beyond
 * the limit, a request that does not arrive in time. The response has the form of every other error,
 * follows the responses to earlier requests of the connection, and closes it.
 *
 * The route of a request that is cut off in its body waits for the rest: `faultOf` gives the reason why it
 * will never be complete.
 */
import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { OnecopyError } from '../errors.js'
import { formatMs } from '../units.js'

/**
 * A client that sends invalid bytes often sends more. Closing a connection with unread bytes causes a reset,
 * and the client may then lose the response. So the rest is read and discarded for this long.
 */
const LINGER_MS = 1000

export interface ArrivalLimits {
  readonly headersTimeoutMs: number
  readonly requestTimeoutMs: number
  /** Headers of every response. */
  readonly headers: Readonly<Record<string, string>>
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

interface Conversation {
  /** The newest request, answered or not. */
  latest: IncomingMessage
  /** In the order of their responses. */
  readonly unanswered: Exchange[]
}

const faults = new WeakMap<Socket, OnecopyError>()

/** Why the server ended a connection; undefined if the client closed it. */
export function faultOf(socket: Socket): OnecopyError | undefined {
  return faults.get(socket)
}

/** Null if the client is gone. Codes: https://nodejs.org/api/http.html#event-clienterror */
function asFault(thrown: unknown, limits: ArrivalLimits, isInBody: boolean): OnecopyError | null {
  const { code = '', reason = 'unreadable' } = thrown as { code?: string; reason?: string }
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    const { headersTimeoutMs, requestTimeoutMs } = limits
    return new OnecopyError(
      'REQUEST_TIMEOUT',
      isInBody
        ? `expected the whole request within ${formatMs(requestTimeoutMs)}`
        : `expected the headers of a request within ${formatMs(headersTimeoutMs)}`,
    )
  }
  if (code === 'HPE_HEADER_OVERFLOW') {
    return new OnecopyError('HEADERS_TOO_LARGE', 'the headers of the request are too large')
  }
  if (code === 'HPE_INVALID_EOF_STATE') {
    return new OnecopyError('REQUEST_CANCELLED', 'the client disconnected before its request was complete')
  }
  if (code.startsWith('HPE_')) return new OnecopyError('REQUEST_MALFORMED', `expected HTTP/1.1: ${reason}`)
  return null
}

function answerText(
  { code, status, message }: OnecopyError,
  headers: Readonly<Record<string, string>>,
): string {
  const body = JSON.stringify({ error: message })
  return [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    `Date: ${new Date().toUTCString()}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Error-Code: ${code}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    'Connection: close',
    '',
    body,
  ].join('\r\n')
}

function endSlowly(socket: Socket, text: string): void {
  socket.end(text)
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
}

export function answerConnectionErrors(server: Server, limits: ArrivalLimits): void {
  const conversations = new WeakMap<Socket, Conversation>()

  server.prependListener('request', (request, response) => {
    const { socket } = request
    let conversation = conversations.get(socket)
    if (conversation === undefined) {
      conversation = { latest: request, unanswered: [] }
      conversations.set(socket, conversation)
    }
    conversation.latest = request
    const { unanswered } = conversation
    unanswered.push({ request, response })
    response.once('close', () => {
      unanswered.splice(
        unanswered.findIndex((exchange) => exchange.response === response),
        1,
      )
      // There are many idle connections: no state is kept for them.
      if (unanswered.length === 0 && request.complete) conversations.delete(socket)
    })
  })

  async function end(socket: Socket, fault: OnecopyError): Promise<void> {
    const { latest, unanswered = [] } = conversations.get(socket) ?? {}
    const cut = latest?.complete === false ? latest : undefined
    const earlier = unanswered.filter(({ request }) => request !== cut)
    await Promise.all(
      earlier.map(({ response }) => new Promise((resolve) => response.once('close', resolve))),
    )
    const ofCut = unanswered.find(({ request }) => request === cut)
    // The client would take a second response for the response to its next request.
    const wasAnswered = cut !== undefined && (ofCut === undefined || ofCut.response.headersSent)
    if (!socket.writable || wasAnswered) socket.destroy()
    else if (fault.code === 'REQUEST_TIMEOUT') {
      // Immediately, so that a body that continues to arrive is not taken for complete.
      socket.write(answerText(fault, limits.headers))
      socket.destroySoon()
    } else endSlowly(socket, answerText(fault, limits.headers))
  }

  server.on('clientError', (thrown, stream) => {
    const socket = stream as Socket
    // Further invalid bytes are reported repeatedly.
    if (faults.has(socket)) return
    const isInBody = conversations.get(socket)?.latest.complete === false
    const fault = asFault(thrown, limits, isInBody)
    // A silent connection may be in a client's pool: the next request on it must not meet an unsolicited
    // response.
    if (fault === null || !socket.writable || socket.bytesRead === 0) {
      socket.destroy()
      return
    }
    faults.set(socket, fault)
    void end(socket, fault)
  })
}
