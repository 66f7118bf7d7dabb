/** What is printed and logged when the server is ready, or cannot start. */

import type { PublishedModel } from '../src/compile/publish.js'
import type { Config } from '../src/config/config.js'
import { urlHost } from '../src/config/host-names.js'
import { messageOf, OnecopyError } from '../src/errors.js'
import type { Log, LogFormat } from '../src/log.js'
import { logBatching } from './models/batching-log.js'
import { readyTable } from './progress.js'
import { startFailureText } from './start-failure.js'

export interface ReadyReport {
  /** Whether standard output is this server's. */
  readonly isPrinted: boolean
  readonly config: Pick<Config, 'host' | 'adminHost' | 'adminTls' | 'workers' | 'isHttp'>
  readonly log: Log
  readonly port: number
  readonly adminPort: number
  readonly hasTls: boolean
  /** Null where none is listened on. */
  readonly socketPath: string | null
  readonly published: readonly PublishedModel[]
}

/** The table of models and the addresses on standard output, the notes on each model and `ready` in the log. */
export function reportReady({
  isPrinted,
  config,
  log,
  port,
  adminPort,
  hasTls,
  socketPath,
  published,
}: ReadyReport): void {
  const { host, adminHost, adminTls, workers, isHttp } = config
  const scheme = hasTls ? 'https' : 'http'
  const adminScheme = adminTls === 'off' ? 'http' : 'https'
  const where = isHttp
    ? `inference on ${scheme}://${urlHost(host)}:${port}, metrics and probes on ${adminScheme}://${urlHost(adminHost)}:${adminPort}`
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
  log.info({ host, port, adminHost, adminPort, workers, models: published.length, ...socket }, 'ready')
}

/** A sentence and a remedy for people; lines of the log stay lines. */
export function reportFailure(
  thrown: unknown,
  { log, format }: { readonly log: Log; readonly format: LogFormat },
): void {
  if (thrown instanceof OnecopyError && format === 'pretty')
    process.stderr.write(`${startFailureText(thrown)}\n`)
  else if (thrown instanceof OnecopyError) log.fatal({ code: thrown.code }, thrown.message)
  else log.fatal({ err: thrown }, messageOf(thrown))
}
