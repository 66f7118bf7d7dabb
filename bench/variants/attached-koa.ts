/**
 * The cluster of plain-koa, but workers attach to the model of a running onecopy and mount its
 * routes.
 */
import Koa from 'koa'
import { attach } from '../../cluster/index.js'
import { runFleet } from './fleet.js'
import { modelFiles } from './koa-app.js'

await runFleet(async ({ modelsDir }) => {
  const app = new Koa()
  for (const { name } of modelFiles(modelsDir)) {
    const model = await attach(name, { segmentDir: process.env.BENCH_SEGMENT_DIR ?? '' })
    app.use(model.koa())
  }
  app.use((ctx) => {
    ctx.body = {}
  })
  return app.callback()
})
