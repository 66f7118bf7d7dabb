/**
 * What Koa itself costs: the same route in the same number of workers, which takes the request's body in,
 * since the client has sent it, and answers `ok`.
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
