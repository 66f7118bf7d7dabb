/**
 * The limit: session.run in a loop, in as many processes as the servers have workers, without HTTP,
 * queue or codec. It runs on request for a given time, so that it can alternate with servers.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Tensor } from 'onnxruntime-node'
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
    /** Tokens per text: the model is an encoder, and this process creates its inputs. */
    tokens: { type: 'string', default: '' },
    loop: { type: 'boolean', default: false },
  },
})

interface Feeds {
  readonly feeds: readonly Record<string, Tensor>[]
  readonly outputName: string
}

async function feedsOfModel(): Promise<Feeds> {
  const subject = await findSubject(values.model)
  const feeds = subject
    .inputs(Number(values.inputs))
    .map((inputs) => toTensors(Object.fromEntries(inputs.map((input) => [input.name, input]))))
  return { feeds, outputName: subject.outputName }
}

function feedsOfText(tokens: number): Feeds {
  const tensor = (value: (place: number) => number) =>
    new Tensor(
      'int64',
      BigInt64Array.from({ length: tokens }, (_, i) => BigInt(value(i))),
      [1, tokens],
    )
  const feeds = Array.from({ length: Number(values.inputs) }, (_, text) => ({
    // Any ids of the smallest vocabulary, because the duration does not depend on them.
    input_ids: tensor((i) => 5 + ((i * 7 + text * 13) % 90)),
    attention_mask: tensor(() => 1),
    token_type_ids: tensor(() => 0),
  }))
  return { feeds, outputName: 'last_hidden_state' }
}

/** Uses the same inputs as the requests, in the same order. */
async function runLoop(): Promise<void> {
  // One thread per process, and as many processes as cores, like the servers.
  const session = await openSession(values.path)
  const { feeds, outputName } =
    values.tokens === '' ? await feedsOfModel() : feedsOfText(Number(values.tokens))
  process.on('message', async ({ durationMs }: LoopRequest) => {
    const latenciesMs: number[] = []
    const startedMs = performance.now()
    for (let nowMs = startedMs; nowMs - startedMs < durationMs; ) {
      await session.run(feeds[latenciesMs.length % feeds.length] ?? {}, [outputName])
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
