/**
 * Where it all began: the model is loaded for every request and let go after it, in a cluster of N workers, as code does
 * that was written for one prediction and then put behind HTTP. What it holds between requests is next to nothing.
 */
import { runFleet } from './fleet.js'
import { inferApp, serveEach } from './koa-app.js'
import { openSession, runSession } from './session.js'

await runFleet(async ({ modelsDir }) => {
  const models = await serveEach(modelsDir, async ({ path, version }) => ({
    version,
    run: async (feeds, outputNames) => {
      const session = await openSession(path)
      try {
        return await runSession(session, feeds, outputNames)
      } finally {
        await session.release()
      }
    },
  }))
  return inferApp(models)
})
