/**
 * The inference thread: the only place of a serving process where the runtime loads and runs, because
 * both block the thread they are called on. Messages are handled one at a time, in order. It never ends
 * by itself in the middle of a run: ending a thread inside the runtime aborts the whole process.
 */
import { type MessagePort, parentPort } from 'node:worker_threads'
import { messageOf, OnecopyError } from '../errors.js'
import { StatsPage } from '../metrics/page.js'
import { RunningModel } from '../metrics/recorder.js'
import { PROCESS_CELL_COUNT } from '../metrics/series.js'
import { leastBytes, responseTooLarge } from '../protocol/v2/response-size.js'
import { Session } from '../runtime/session.js'
import type { Tensor } from '../tensor.js'
import {
  type OutputLimit,
  type ThreadReply,
  type ThreadRequest,
  ThreadRequestSchema,
  transferList,
} from './messages.js'

interface Loaded {
  readonly session: Session
  /** Names the model version in the stats pages. */
  readonly number: number
}

const sessions = new Map<string, Loaded>()
/** In memory of its own until it is known where to say it. */
let runningModel = new RunningModel(new Float64Array(PROCESS_CELL_COUNT))

function loadedOf(modelKey: string): Loaded {
  const loaded = sessions.get(modelKey)
  if (loaded === undefined) throw new OnecopyError('MODEL_NOT_READY', `model ${modelKey} is not loaded`)
  return loaded
}

async function load(request: Extract<ThreadRequest, { type: 'load' }>): Promise<void> {
  const { modelKey, number } = request
  try {
    const session = await runningModel.during({ number, isLoading: true }, () => Session.load(request))
    sessions.set(modelKey, { session, number })
  } catch (thrown) {
    throw new OnecopyError('MODEL_UNSUPPORTED', `the runtime cannot load ${modelKey}: ${messageOf(thrown)}`)
  }
}

/** What nobody can be answered with goes no further, and is given back at once: without an answer nothing else would. */
function checkSize(outputs: readonly Tensor[], limit: OutputLimit | null): void {
  if (limit === null) return
  const bytes = leastBytes(outputs, limit.leastElementBytes)
  if (bytes <= limit.bytes) return
  setImmediate(() => globalThis.gc?.())
  throw responseTooLarge({ maxBytes: limit.bytes, bytes, isExact: false, outputs })
}

async function handle(request: ThreadRequest): Promise<ThreadReply> {
  const { id } = request
  if (request.type === 'report') {
    runningModel = new RunningModel((await StatsPage.open(request.page)).slot(request.slot))
  } else if (request.type === 'load') await load(request)
  else if (request.type === 'run') {
    const { session, number } = loadedOf(request.modelKey)
    const { inputs, outputNames, isProving: isLoading } = request
    const startedNs = process.hrtime.bigint()
    const outputs = await runningModel.during({ number, isLoading }, () => session.run(inputs, outputNames))
    const computeNs = Number(process.hrtime.bigint() - startedNs)
    checkSize(outputs, request.outputLimit)
    return {
      type: 'ran',
      id,
      outputs: outputs.map((tensor) => ({ ...tensor, shape: [...tensor.shape] })),
      startedNs: Number(startedNs),
      computeNs,
    }
  } else if (request.type === 'unload') {
    await sessions.get(request.modelKey)?.session.close()
    sessions.delete(request.modelKey)
  } else if (request.type === 'close') {
    for (const { session } of sessions.values()) await session.close()
    sessions.clear()
  }
  return { type: 'done', id }
}

function serve(port: MessagePort): void {
  let turn = Promise.resolve()
  port.on('message', (message: unknown) => {
    turn = turn.then(async () => {
      const request = ThreadRequestSchema.parse(message)
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

if (parentPort !== null) serve(parentPort)
