/**
 * Frees memory after many clients have disconnected. Objects of connections are in V8's old generation, which
 * is collected only under allocation pressure: a worker that lost thousands of connections kept their memory
 * for minutes. So one collection runs after many disconnects; it takes some tens of milliseconds. Needs `node
 * --expose-gc`.
 */
import type { Server } from 'node:http'
import { returnFreePages } from '../mapping.js'

/** Below this, some 10 MB, V8 decides. */
const CROWD = 1000
/** Other clients disconnect meanwhile, and frequent reconnects do not cause frequent collections. */
const DELAY_MS = 1000
const REST_MS = 10_000

export function collectAfterDisconnects(server: Server): void {
  const { gc } = globalThis
  if (gc === undefined) return
  let open = 0
  /** Maximum number of connections since the last collection. */
  let most = 0
  let timer: NodeJS.Timeout | undefined
  let restUntilMs = 0

  const collect = () => {
    timer = undefined
    if (most - open < CROWD) return
    most = open
    restUntilMs = performance.now() + REST_MS
    // The first run finds the sockets; the second frees their memory outside the heap.
    gc()
    setImmediate(() => {
      gc()
      returnFreePages()
    })
  }
  server.on('connection', (socket) => {
    most = Math.max(most, ++open)
    socket.once('close', () => {
      open--
      if (timer !== undefined || most - open < CROWD) return
      timer = setTimeout(collect, Math.max(DELAY_MS, restUntilMs - performance.now())).unref()
    })
  })
}
