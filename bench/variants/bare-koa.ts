/**
 * The cost of Koa itself: the same route in the same number of workers, which reads the request body and
 * returns `ok`.
 */
import Router from '@koa/router'
import Koa from 'koa'
import { runFleet } from './fleet.js'

await runFleet(() => {
  const router = new Router()
  router.post('/v2/models/:name/infer', async (ctx) => {
    for await (const _ of ctx.req);
    ctx.body = 'ok'
  })
  const app = new Koa()
  app.use(router.routes())
  return app.callback()
})
