/**
 * Recovers connections that a worker did not accept. The primary accepts connections and hands each to a
 * worker, which acknowledges it. Node forgets connections without an acknowledgement when the worker dies:
 * they stay open in the primary for ever, and no process answers. Here they go to another worker, or are
 * closed if there is none.
 *
 * A worker acknowledges a connection before it reads from it. A connection without an acknowledgement is
 * therefore unread, and no data is lost. The messages are internal to Node and have not changed since round
 * robin was added: https://github.com/nodejs/node/blob/v20.x/lib/internal/cluster/round_robin_handle.js
 */
import type { Worker } from 'node:cluster'
import * as z from 'zod'

const HandoverSchema = z.object({
  cmd: z.literal('NODE_CLUSTER'),
  act: z.literal('newconn'),
  seq: z.number(),
})
const AckSchema = z.object({ cmd: z.literal('NODE_CLUSTER'), ack: z.number() })

/** Tracks the connections handed to a worker, from its fork to its exit. */
export function returnUnacceptedConnections(worker: Worker, hasOthers: () => boolean): void {
  const child = worker.process
  const unacknowledged = new Set<number>()
  const send = child.send.bind(child) as (...args: unknown[]) => boolean
  child.send = (...args: unknown[]) => {
    const handover = HandoverSchema.safeParse(args[0])
    if (handover.success) unacknowledged.add(handover.data.seq)
    return send(...args)
  }
  child.on('internalMessage', (message: unknown) => {
    const ack = AckSchema.safeParse(message)
    if (ack.success) unacknowledged.delete(ack.data.ack)
  })
  const handBack = () => {
    for (const ack of unacknowledged)
      child.emit('internalMessage', { cmd: 'NODE_CLUSTER', ack, accepted: !hasOthers() })
    unacknowledged.clear()
  }
  // No acknowledgement can arrive after the channel has closed. With a pending connection, 'disconnect' may
  // never be emitted. By then, Node's own listeners have removed the worker from the round robin.
  child.once('exit', () => {
    if (child.connected) child.once('disconnect', () => setImmediate(handBack))
    else setImmediate(handBack)
  })
}
