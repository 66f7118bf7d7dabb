/** Output and log entries when the server is ready or fails to start. */
import type { PublishedModel } from '../src/compile/publish.js'
import type { Config } from '../src/config/config.js'
import { urlHost } from '../src/config/host-names.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import type { Log, LogFormat } from '../src/log.js'
import { isInMemory } from '../src/segment/folder.js'
import { logBatching } from './models/batching-log.js'
import { readyTable } from './progress.js'
import { startFailureText } from './start-failure.js'

export interface ReadyReport {
  /** Whether the server may write to standard output. */
  readonly isPrinted: boolean
  readonly config: Pick<Config, 'host' | 'adminHost' | 'adminTls' | 'workers' | 'isHttp'>
  readonly log: Log
  readonly port: number
  readonly adminPort: number
  /** Null without gRPC. */
  readonly grpcPort: number | null
  readonly hasTls: boolean
  /** Null without a Unix socket. */
  readonly socketPath: string | null
  readonly published: readonly PublishedModel[]
}

/** Prints the models and addresses to standard output; logs the notes on each model and `ready`. */
export function reportReady({
  isPrinted,
  config,
  log,
  port,
  adminPort,
  grpcPort,
  hasTls,
  socketPath,
  published,
}: ReadyReport): void {
  const { host, adminHost, adminTls, workers, isHttp } = config
  const scheme = hasTls ? 'https' : 'http'
  const adminScheme = adminTls === 'off' ? 'http' : 'https'
  const grpc = grpcPort === null ? '' : `, gRPC on ${urlHost(host)}:${grpcPort}`
  const where = isHttp
    ? `inference on ${scheme}://${urlHost(host)}:${port}${grpc}, metrics and probes on ${adminScheme}://${urlHost(adminHost)}:${adminPort}`
    : `inference on the socket ${socketPath}`
  if (isPrinted) process.stdout.write(`${readyTable(published, workers)}\nready: ${where}\n`)
  for (const { source, segment } of published) {
    const model = { model: source.name, version: source.version }
    for (const { name, reason } of segment.header.skippedOutputs)
      log.warn({ ...model, output: name }, `output ${name} is not served: it ${reason}`)
    for (const note of segment.header.sharing.notes) log.info(model, note)
    logBatching(log, source, segment.header)
  }
  const socket = socketPath === null ? {} : { socketPath }
  const grpcFacts = grpcPort === null ? {} : { grpcPort }
  log.info(
    { host, port, ...grpcFacts, adminHost, adminPort, workers, models: published.length, ...socket },
    'ready',
  )
}

/** On a terminal, prints the error and a remedy. With JSON logs, writes a log line. */
export function reportFailure(
  thrown: unknown,
  { log, format }: { readonly log: Log; readonly format: LogFormat },
): void {
  if (thrown instanceof OnecopyError && format === 'pretty')
    process.stderr.write(`${startFailureText(thrown)}\n`)
  else if (thrown instanceof OnecopyError) log.fatal({ code: thrown.code }, thrown.message)
  else log.fatal({ err: thrown }, messageOf(thrown))
}

/** Why readiness probes fail; null while the server is ready. */
export function notReadyReason(facts: {
  readonly state: string
  readonly failure: string | null
  readonly readyWorkers: () => number | undefined
  readonly isServing: () => boolean | undefined
}): string | null {
  const { state, failure } = facts
  if (state === 'failed') return failure ?? 'the server has failed'
  if (state !== 'ready') return `the server is ${state}`
  if (facts.readyWorkers() === 0) return 'no worker is ready'
  return facts.isServing() === false
    ? 'no model is served: POST /v2/repository/index lists the reasons'
    : null
}

export async function warnIfOnDisk(segmentDir: string, log: Log): Promise<void> {
  if (!(await isInMemory(segmentDir)))
    log.warn({ segmentDir }, 'the segment folder is not in memory: weights are read from a disk')
}
