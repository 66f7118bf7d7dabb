/**
 * One process, one event loop for HTTP, and a pool of worker threads that run the model: what is reached for where
 * inference must not block the loop. Every thread holds a session of its own, because sessions cannot be handed over.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { endWithParent, sayReady, variantArguments } from './fleet.js'
import { inferApp, serveEach } from './koa-app.js'
import type { PoolTask } from './thread-pool-worker.js'
import type { PlainTensors } from './v2-codec.js'

endWithParent()
const { modelsDir, workers, port } = variantArguments()
const models = await serveEach(modelsDir, async ({ path, version }) => {
  const pool = new Piscina({
    filename: fileURLToPath(new URL('./thread-pool-worker.js', import.meta.url)),
    workerData: { path },
    // As many threads as the other variants have processes, started before the first request and kept.
    minThreads: workers,
    maxThreads: workers,
    idleTimeout: Number.POSITIVE_INFINITY,
    // A session runs one request at a time, on its one thread.
    concurrentTasksPerWorker: 1,
  })
  return {
    version,
    run: async (feeds, outputNames): Promise<PlainTensors> => {
      const task: PoolTask = { feeds, outputNames }
      // Moved, not copied: the buffers were made for this request alone.
      const transferList = Object.values(feeds).map(({ data }) => data.buffer as ArrayBuffer)
      return await pool.run(task, { transferList })
    },
  }
})
const server = createServer(inferApp(models))
server.listen(port, '127.0.0.1', () => sayReady((server.address() as AddressInfo).port))
