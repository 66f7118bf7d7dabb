// A Koa cluster whose workers attach to the model that `onecopy serve` keeps. PORT=3000 WORKERS=4 node koa-cluster.mjs
import cluster from 'node:cluster'
import { once } from 'node:events'
import Koa from 'koa'
import { attach } from 'onecopy'

if (cluster.isPrimary) {
  for (let i = 0; i < Number(process.env.WORKERS ?? 4); i++) cluster.fork()
  let isStopping = false
  // A worker that dies is replaced. The model stays where it is.
  cluster.on('exit', () => {
    if (!isStopping) cluster.fork()
  })
  process.once('SIGTERM', () => {
    isStopping = true
    cluster.disconnect()
  })
} else {
  // The primary may have disconnected it already.
  const left = cluster.worker.isConnected() ? once(cluster.worker, 'disconnect') : null
  const model = await attach('logp', { onSwap: 'follow' })
  const app = new Koa()
  // POST /v2/models/logp/infer and the routes beside it.
  app.use(model.koa())
  // Your own route: GET /?bits=256,257
  app.use(async (ctx) => {
    const fingerprint = new Float32Array(2048)
    for (const bit of String(ctx.query.bits ?? '').split(',')) fingerprint[Number(bit)] = 1
    const { logp } = await model.run({ fingerprint }, { timeoutMs: 1000 })
    ctx.body = { logp: logp.data[0], pid: process.pid }
  })
  if (cluster.worker.isConnected()) app.listen(Number(process.env.PORT ?? 3000))
  await left
  await model.close()
}
