/**
 * The limit: session.run in a loop, in as many processes as the servers have workers, without HTTP, queue or
 * codec. It runs on request for a given time, so that it can alternate with servers.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { findSubject } from '../models/subject.js'
import { endWithParent } from './fleet.js'
import type { LoopReply, LoopRequest } from './loop-messages.js'
import { openSession, toTensors } from './session.js'

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: '' },
    path: { type: 'string', default: '' },
    processes: { type: 'string', default: '2' },
    inputs: { type: 'string', default: '8' },
    loop: { type: 'boolean', default: false },
  },
})

/** Uses the same inputs as the requests, in the same order. */
async function runLoop(): Promise<void> {
  // One thread per process, and as many processes as cores, like the servers.
  const session = await openSession(values.path)
  const subject = await findSubject(values.model)
  const feeds = subject
    .inputs(Number(values.inputs))
    .map((inputs) => toTensors(Object.fromEntries(inputs.map((input) => [input.name, input]))))
  process.on('message', async ({ durationMs }: LoopRequest) => {
    const latenciesMs: number[] = []
    const startedMs = performance.now()
    for (let nowMs = startedMs; nowMs - startedMs < durationMs; ) {
      await session.run(feeds[latenciesMs.length % feeds.length] ?? {}, [subject.outputName])
      const endedMs = performance.now()
      latenciesMs.push(endedMs - nowMs)
      nowMs = endedMs
    }
    process.send?.({ latenciesMs, elapsedMs: performance.now() - startedMs } satisfies LoopReply)
  })
  process.send?.('loaded')
}

async function request(child: ChildProcess, message: LoopRequest): Promise<LoopReply> {
  child.send(message)
  const [reply] = (await once(child, 'message')) as [LoopReply]
  return reply
}

async function runPrimary(): Promise<void> {
  const self = fileURLToPath(import.meta.url)
  const children = Array.from({ length: Number(values.processes) }, () =>
    fork(self, [...process.argv.slice(2), '--loop']),
  )
  for (const child of children) child.on('exit', () => process.exit(1))
  await Promise.all(children.map((child) => once(child, 'message')))
  process.on('message', async (message: LoopRequest) => {
    const replies = await Promise.all(children.map((child) => request(child, message)))
    process.send?.({
      latenciesMs: replies.flatMap((reply) => reply.latenciesMs),
      elapsedMs: Math.max(...replies.map((reply) => reply.elapsedMs)),
    } satisfies LoopReply)
  })
  process.stderr.write(`${JSON.stringify({ msg: 'ready' })}\n`)
}

endWithParent()
if (values.loop) await runLoop()
else await runPrimary()
