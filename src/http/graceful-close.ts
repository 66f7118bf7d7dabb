/** The end of an HTTP server: every accepted request is answered, and clients that keep connections lose none. */
import type { Server } from 'node:http'
import { Server as NetServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/**
 * How long responses say `Connection: close` before the listening socket is closed: time for clients
 * that keep connections alive to go elsewhere without losing a request.
 */
const NOTICE_MS = 400
/** Between the last connection accepted and the end of those that are idle. */
const LAST_ACCEPTED_MS = 100

/**
 * Responses say `Connection: close` from now on. Resolves when the last connection is closed. `isUrgent` closes the
 * listening sockets immediately: other workers take over now.
 */
export async function closeServers(
  servers: readonly (Server | null)[],
  { isUrgent }: { readonly isUrgent: boolean },
): Promise<void> {
  if (!isUrgent) await delay(NOTICE_MS)
  const listening = servers.filter((server) => server?.listening === true) as Server[]
  const closed = listening.map((server) => new Promise((resolve) => stopListening(server, resolve)))
  // A connection that was accepted just before has its first request on its way.
  await delay(isUrgent ? NOTICE_MS : LAST_ACCEPTED_MS)
  for (const server of listening) server.closeIdleConnections()
  await Promise.all(closed)
}

/** The HTTP server's own `close` also ends connections that have not sent their first request yet. */
function stopListening(server: Server, onClosed: (value?: unknown) => void): void {
  NetServer.prototype.close.call(server, onClosed)
}
