/**
 * The memory of a worker without a model: a cluster worker with Koa and ONNX Runtime loaded. It checks the
 * bare servers of the memory bench: their additional memory belongs to the server and must not be subtracted.
 */
import Router from '@koa/router'
import Koa from 'koa'
import { listSupportedBackends } from 'onnxruntime-node'
import { runFleet } from './fleet.js'

await runFleet(() => {
  // Listing the backends proves that the native library is loaded.
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
