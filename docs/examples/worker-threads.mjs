// A pool of worker threads, each attached to the model: work beside the model runs in parallel. THREADS=4 node worker-threads.mjs
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { attach } from 'onecopy'

const PHENOL = [256, 257, 264, 856, 857, 932, 1180, 1348, 1349, 1350, 1424]

if (isMainThread) {
  const count = Number(process.env.THREADS ?? 4)
  const threads = Array.from({ length: count }, () => new Worker(fileURLToPath(import.meta.url)))
  for (const thread of threads) thread.postMessage(PHENOL)
  const answers = await Promise.all(threads.map((thread) => once(thread, 'message')))
  console.log(answers.map(([logp]) => logp.toFixed(2)).join(' '))
} else {
  const [bits] = await once(parentPort, 'message')
  const model = await attach('logp')
  const fingerprint = new Float32Array(2048)
  for (const bit of bits) fingerprint[bit] = 1
  const { logp } = await model.run({ fingerprint })
  parentPort.postMessage(logp.data[0])
  // A thread that ends inside the runtime aborts the process: close first.
  await model.close()
}
