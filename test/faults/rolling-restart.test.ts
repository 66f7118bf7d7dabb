import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'
import { until } from '../helpers/waiting.js'
import { FaultServer } from './fault-server.js'

const CONNECTIONS = 32
const RESTARTS = 20
const WORKERS = 2
/**
 * Pause between two requests of a client. Without it, the clients take the CPUs from the workers
 * that start, and no connection is idle when its worker ends, which is when a request is most
 * likely to be lost.
 */
const THINK_MS = 20
/** The client stops after this many failures. */
const MAX_FAULTS = 20
const REPLACED = 'every worker was replaced'

interface Load {
  answered: number
  readonly faults: string[]
}

/** One request with an output that depends on `x`; null if it is correct. */
function ask(agent: Agent, url: string, x: number): Promise<string | null> {
  const body = JSON.stringify({ inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2], data: [x, 2 * x] }] })
  return new Promise((resolve) => {
    const call = request(`${url}/v2/models/add/infer`, { method: 'POST', agent }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part
      })
      response.on('error', (thrown) => resolve(`in the response: ${thrown.message}`))
      response.on('end', () => {
        if (response.statusCode !== 200) return resolve(`status ${response.statusCode}: ${text}`)
        const { outputs } = JSON.parse(text) as { outputs: { data: number[] }[] }
        const got = outputs[0]?.data.join()
        resolve(got === [x + 1, 2 * x + 2].join() ? null : `expected ${x + 1},${2 * x + 2}, got ${got}`)
      })
    })
    call.on('error', (thrown: NodeJS.ErrnoException) => resolve(thrown.code ?? thrown.message))
    call.end(body)
  })
}

async function client(options: {
  url: string
  seed: number
  load: Load
  isOver: () => boolean
}): Promise<void> {
  const { url, seed, load, isOver } = options
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  for (let sent = 0; !isOver(); sent++) {
    const fault = await ask(agent, url, seed + (sent % 1000))
    if (fault === null) load.answered++
    else if (load.faults.push(fault) >= MAX_FAULTS) break
    await pause(THINK_MS)
  }
  agent.destroy()
}

async function restart(t: ExecutionContext, server: FaultServer, count: number, load: Load): Promise<void> {
  const before = server.workerPids()
  const answeredBefore = load.answered
  server.server.process.kill('SIGHUP')
  await until(`the log line of restart ${count}`, () => {
    server.assertAlive()
    return server.server.log.filter(({ msg }) => msg === REPLACED).length >= count
  })
  await until('the old workers to exit', () => server.workerPids().every((pid) => !before.includes(pid)))
  t.is(server.workerPids().length, WORKERS)
  t.true(load.answered > answeredBefore, 'requests were answered during the restart')
}

test.serial('rolling restarts under load fail no request, and every output is correct', async (t) => {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const server = new FaultServer(t, { models, args: ['--workers', String(WORKERS)] })
  const { url } = await server.server.ready()
  const load: Load = { answered: 0, faults: [] }
  let isOver = false
  const clients = Array.from({ length: CONNECTIONS }, (_, seed) =>
    client({ url, seed, load, isOver: () => isOver }),
  )
  try {
    for (let count = 1; count <= RESTARTS; count++) await restart(t, server, count, load)
  } finally {
    isOver = true
    await Promise.all(clients)
  }
  t.deepEqual(load.faults, [])
  t.deepEqual(await server.server.stop(), { code: 0, signal: null })
  await server.untilGone()
  t.deepEqual(server.leftovers(), [])
})
