/**
 * Loads the model for every request and releases it afterwards, in a cluster of N workers. This is typical of
 * code written for a single prediction and later put behind HTTP. It uses almost no memory between requests.
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
