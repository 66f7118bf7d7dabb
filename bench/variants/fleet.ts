/** Shared by the compared servers: N cluster workers on one port, and the ready line. */
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { parseArgs } from 'node:util'

export interface VariantArguments {
  /** Model repository, NAME/VERSION/model.onnx; empty if the variant serves none. */
  readonly modelsDir: string
  readonly workers: number
  readonly port: number
  /** Dead workers are replaced, and SIGHUP replaces all workers, one at a time. */
  readonly isSupervised: boolean
}

export function variantArguments(): VariantArguments {
  const { values } = parseArgs({
    options: {
      models: { type: 'string', default: '' },
      workers: { type: 'string', default: '2' },
      port: { type: 'string', default: '0' },
      supervised: { type: 'boolean', default: false },
    },
  })
  return {
    modelsDir: values.models,
    workers: Number(values.workers),
    port: Number(values.port),
    isSupervised: values.supervised,
  }
}

/** A variant ends with the process that started it. */
export function endWithParent(): void {
  process.on('SIGTERM', () => process.exit(0))
  process.on('disconnect', () => process.exit(0))
}

/** Prints the line that the harness waits for, in the format of onecopy. */
export function reportReady(port: number): void {
  process.stderr.write(`${JSON.stringify({ msg: 'ready', host: '127.0.0.1', port })}\n`)
}

/** Retiring workers, which are not replaced when they exit. */
const leaving = new Set<Worker>()
const LEAVE = 'leave'
/** Deadline for requests in flight. */
const LEAVE_TIMEOUT_MS = 5000

/** Replaces workers one at a time, like `reload` of pm2: a new worker listens before an old one leaves. */
async function replaceAll(): Promise<void> {
  for (const old of Object.values(cluster.workers ?? {})) {
    if (old === undefined || leaving.has(old)) continue
    await once(cluster.fork(), 'listening')
    leaving.add(old)
    const ended = once(old, 'exit')
    old.send(LEAVE)
    const timer = setTimeout(() => old.process.kill('SIGKILL'), LEAVE_TIMEOUT_MS)
    await ended
    clearTimeout(timer)
  }
  process.stderr.write(`${JSON.stringify({ msg: 'replaced' })}\n`)
}

function runPrimary({ workers, isSupervised }: VariantArguments): void {
  let listening = 0
  cluster.on('listening', (_, address) => {
    if (++listening === workers) reportReady(address.port)
  })
  if (isSupervised) process.on('SIGHUP', () => void replaceAll())
  // With fewer workers the comparison would be invalid, so the variant exits and the bench fails.
  cluster.on('exit', (worker, exitCode, signal) => {
    if (isSupervised) {
      if (!leaving.delete(worker)) cluster.fork()
      return
    }
    process.stderr.write(`a worker ended with ${signal ?? exitCode}\n`)
    process.exit(1)
  })
  for (let i = 0; i < workers; i++) cluster.fork()
}

/** Runs `createListener` in every worker and serves what it returns. */
export async function runFleet(
  createListener: (args: VariantArguments) => RequestListener | Promise<RequestListener>,
): Promise<void> {
  const args = variantArguments()
  endWithParent()
  if (cluster.isPrimary) runPrimary(args)
  else {
    const listener = await createListener(args)
    let isLeaving = false
    const server = createServer((request, response) => {
      // Keep-alive clients would otherwise keep an old worker alive.
      if (isLeaving) response.setHeader('Connection', 'close')
      listener(request, response)
    })
    process.on('message', (message) => {
      if (message !== LEAVE) return
      isLeaving = true
      server.close(() => process.exit(0))
    })
    server.listen(args.port, '127.0.0.1')
  }
}
