/** What the compared servers share: N cluster workers on one port, and one line that says they are ready. */
import cluster from 'node:cluster'
import { createServer, type RequestListener } from 'node:http'
import { parseArgs } from 'node:util'

export interface VariantArguments {
  /** Model repository, NAME/VERSION/model.onnx; empty where the variant serves none. */
  readonly modelsDir: string
  readonly workers: number
  readonly port: number
}

function variantArguments(): VariantArguments {
  const { values } = parseArgs({
    options: {
      models: { type: 'string', default: '' },
      workers: { type: 'string', default: '2' },
      port: { type: 'string', default: '0' },
    },
  })
  return { modelsDir: values.models, workers: Number(values.workers), port: Number(values.port) }
}

/** Without the process that started it a variant has no reason to go on. */
export function endWithParent(): void {
  process.on('SIGTERM', () => process.exit(0))
  process.on('disconnect', () => process.exit(0))
}

/** The line that the harness waits for; of the same shape as the server's own. */
function sayReady(port: number): void {
  process.stderr.write(`${JSON.stringify({ msg: 'ready', host: '127.0.0.1', port })}\n`)
}

function runPrimary({ workers }: VariantArguments): void {
  let listening = 0
  cluster.on('listening', (_, address) => {
    if (++listening === workers) sayReady(address.port)
  })
  // A variant that lost a worker would be compared with less than it claims: it ends, and the bench says so.
  cluster.on('exit', (_, exitCode, signal) => {
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
    const server = createServer(await createListener(args))
    server.listen(args.port, '127.0.0.1')
  }
}
