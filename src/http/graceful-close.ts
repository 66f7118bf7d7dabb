/** The end of an HTTP server: every accepted request is answered, also on keep-alive connections. */
import type { Server } from 'node:http'
import { Server as NetServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * How long responses say `Connection: close` before the listening socket is closed: time for clients
 * that keep connections alive to go elsewhere without losing a request.
 */
const NOTICE_MS = 400
/** Time between the last accepted connection and the closing of idle ones. */
const LAST_ACCEPTED_MS = 100

/**
 * Responses say `Connection: close` from now on. Resolves when the last connection is closed. `isUrgent`
 * closes the listening sockets immediately: other workers take over now.
 */
export async function closeServers(
  servers: readonly (Server | null)[],
  { isUrgent }: { readonly isUrgent: boolean },
): Promise<void> {
  if (!isUrgent) await delay(NOTICE_MS)
  const listening = servers.filter((server) => server?.listening === true) as Server[]
  const closed = listening.map((server) => new Promise((resolve) => stopListening(server, resolve)))
  // The first request of a newly accepted connection is still in transit.
  await delay(isUrgent ? NOTICE_MS : LAST_ACCEPTED_MS)
  for (const server of listening) server.closeIdleConnections()
  await Promise.all(closed)
}

/** The HTTP server's own `close` also ends connections that have not sent their first request yet. */
function stopListening(server: Server, onClosed: (value?: unknown) => void): void {
  NetServer.prototype.close.call(server, onClosed)
}
