/**
 * What a worker weighs before it has any model: a cluster worker with Koa and ONNX Runtime loaded. It
 * checks the bare servers of the memory bench: what they hold beyond this is the server's own, and must
 * not hide in what is subtracted.
 */
import Router from '@koa/router'
import Koa from 'koa'
import { listSupportedBackends } from 'onnxruntime-node'
import { runFleet } from './fleet.js'

await runFleet(() => {
  // Asking for the backends proves that the native library is loaded.
  const backends = listSupportedBackends().map(({ name }) => name)
  const router = new Router()
  router.post('/v2/models/:name/infer', async (ctx) => {
    for await (const _ of ctx.req);
    ctx.body = { backends }
  })
  const app = new Koa()
  app.use(router.routes())
  return app.callback()
})
