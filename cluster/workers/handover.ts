/**
 * Connections on their way to a worker. The primary accepts them and hands each to a worker, which says whether it
 * takes it. Node forgets those that were on their way when the worker died: they stay open in the
 * primary, answered by nobody, for ever. Here they are given to another worker, or closed where there is none.
 *
 * A worker acknowledges a connection before it reads from it, so what was not acknowledged when its channel closed was not
 * read: nothing of it is lost. The messages are Node's own, unchanged since the cluster module has had
 * round robin: https://github.com/nodejs/node/blob/v20.x/lib/internal/cluster/round_robin_handle.js
 */
import type { Worker } from 'node:cluster'
import { z } from 'zod'

const HandoverSchema = z.object({
  cmd: z.literal('NODE_CLUSTER'),
  act: z.literal('newconn'),
  seq: z.number(),
})
const AckSchema = z.object({ cmd: z.literal('NODE_CLUSTER'), ack: z.number() })

/** Looks after the connections that are handed to a worker, from its fork to its end. */
export function returnUnacceptedConnections(worker: Worker, hasOthers: () => boolean): void {
  const child = worker.process
  const underWay = new Set<number>()
  const send = child.send.bind(child) as (...args: unknown[]) => boolean
  child.send = (...args: unknown[]) => {
    const handover = HandoverSchema.safeParse(args[0])
    if (handover.success) underWay.add(handover.data.seq)
    return send(...args)
  }
  child.on('internalMessage', (message: unknown) => {
    const ack = AckSchema.safeParse(message)
    if (ack.success) underWay.delete(ack.data.ack)
  })
  const giveBack = () => {
    for (const ack of underWay)
      child.emit('internalMessage', { cmd: 'NODE_CLUSTER', ack, accepted: !hasOthers() })
    underWay.clear()
  }
  // When the channel is closed no acknowledgement can come any more; with a connection under way 'disconnect' may
  // never be emitted. Afterwards Node's own listeners have taken the worker out of the round.
  child.once('exit', () => {
    if (child.connected) child.once('disconnect', () => setImmediate(giveBack))
    else setImmediate(giveBack)
  })
}
