/**
 * A process for each request: it starts, loads the model, answers and exits, like a command-line predictor
 * behind HTTP. At most N run concurrently, as many as the other variants have workers, because more would
 * only compete for the same cores.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { deserialize, serialize } from 'node:v8'
import { endWithParent, reportReady, variantArguments } from './fleet.js'
import { inferApp, serveEach } from './koa-app.js'
import type { PlainTensors } from './v2-codec.js'

const SCRIPT = fileURLToPath(new URL('./process-per-request-run.js', import.meta.url))

endWithParent()
const { modelsDir, workers, port } = variantArguments()
const running = new Set<ChildProcess>()
const waiting: (() => void)[] = []
let free = workers

async function runOnce(path: string, task: object): Promise<PlainTensors> {
  if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve))
  else free--
  try {
    const child = spawn(process.execPath, [SCRIPT, path], { stdio: ['pipe', 'pipe', 'inherit'] })
    running.add(child)
    const chunks: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
    const closed = once(child, 'close')
    child.stdin.end(serialize(task))
    const [exitCode] = await closed
    running.delete(child)
    if (exitCode !== 0) throw new Error(`the process for a request ended with ${exitCode}`)
    return deserialize(Buffer.concat(chunks)) as PlainTensors
  } finally {
    const next = waiting.shift()
    if (next === undefined) free++
    else next()
  }
}

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})
const models = await serveEach(modelsDir, async ({ path, version }) => ({
  version,
  run: (feeds, outputNames) => runOnce(path, { feeds, outputNames }),
}))
const server = createServer(inferApp(models))
server.listen(port, '127.0.0.1', () => reportReady((server.address() as AddressInfo).port))
