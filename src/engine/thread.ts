/**
 * The inference thread: it runs what would block an event loop for too long. It handles one message at a
 * time, in order. It never ends by itself during a run: ending a thread inside the runtime aborts the whole
 * process.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { OnecopyError } from '../errors.js'
import { StatsPage } from '../metrics/page.js'
import { loadRuntime } from '../runtime/session.js'
import { type ThreadReply, type ThreadRequest, type ThreadStart, transferList } from './messages.js'
import { Sessions } from './sessions.js'

const sessions = new Sessions('runningInThread')

async function handle(request: ThreadRequest): Promise<ThreadReply> {
  const { id } = request
  if (request.type === 'run') return { type: 'ran', id, ...sessions.run(request) }
  if (request.type === 'load') return { type: 'loaded', id, loadMs: sessions.load(request) }
  if (request.type === 'report') sessions.reportTo((await StatsPage.open(request.page)).slot(request.slot))
  else if (request.type === 'unload') sessions.unload(request.modelKey)
  else if (request.type === 'close') sessions.close()
  return { type: 'done', id }
}

function serve(port: MessagePort): void {
  let turn = Promise.resolve()
  port.on('message', (request: ThreadRequest) => {
    turn = turn.then(async () => {
      const reply = await handle(request).catch((thrown): ThreadReply => {
        // A bug is not a reply: it ends the thread, and with it the worker.
        if (!(thrown instanceof OnecopyError)) throw thrown
        return { type: 'failed', id: request.id, code: thrown.code, message: thrown.message }
      })
      port.postMessage(reply, reply.type === 'ran' ? transferList(reply.outputs) : [])
      if (request.type === 'close') port.close()
    })
  })
}

if (parentPort !== null) {
  serve(parentPort)
  if ((workerData as ThreadStart).preloadsRuntime) loadRuntime()
}
