/**
 * One process with one event loop for HTTP and a pool of worker threads that run the model. This is the
 * common design if inference must not block the event loop. Every thread has its own session, because
 * sessions cannot be shared between threads.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { endWithParent, reportReady, variantArguments } from './fleet.js'
import { inferApp, serveEach } from './koa-app.js'
import type { PoolTask } from './thread-pool-worker.js'
import type { PlainTensors } from './v2-codec.js'

endWithParent()
const { modelsDir, workers, port } = variantArguments()
const models = await serveEach(modelsDir, async ({ path, version }) => {
  const pool = new Piscina({
    filename: fileURLToPath(new URL('./thread-pool-worker.js', import.meta.url)),
    workerData: { path },
    // As many threads as the other variants have processes, started before the first request and kept alive.
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
      // Transferred, not copied: only this request uses the buffers.
      const transferList = Object.values(feeds).map(({ data }) => data.buffer as ArrayBuffer)
      return await pool.run(task, { transferList })
    },
  }
})
const server = createServer(inferApp(models))
server.listen(port, '127.0.0.1', () => reportReady((server.address() as AddressInfo).port))
