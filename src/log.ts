/** Structured logs on standard error: one JSON object a line, or lines for people on a terminal. */
import { createRequire } from 'node:module'
import { type DestinationStream, pino } from 'pino'

export type Log = import('pino').Logger
export type LogFormat = 'json' | 'pretty'

const STDERR = 2
// Loaded where a terminal asks for it: a worker in a container holds nothing of it.
const require = createRequire(import.meta.url)

/** `auto` is for people where standard error is a terminal, and JSON elsewhere. */
export function logFormatOf(choice: LogFormat | 'auto'): LogFormat {
  if (choice !== 'auto') return choice
  return process.stderr.isTTY ? 'pretty' : 'json'
}

function destination(format: LogFormat): DestinationStream {
  // Synchronous: a process that dies has written its last line.
  if (format === 'json') return pino.destination({ dest: STDERR, sync: true })
  const { build: pretty } = require('pino-pretty') as typeof import('pino-pretty')
  return pretty({
    destination: STDERR,
    sync: true,
    colorize: process.stderr.isTTY,
    translateTime: 'SYS:HH:MM:ss.l',
    messageFormat: '{role}[{pid}] {msg}',
    ignore: 'pid,role',
    singleLine: true,
  })
}

export function createLog(options: {
  readonly level: string
  readonly role: string
  readonly format: LogFormat
}): Log {
  return pino(
    {
      level: options.level,
      base: { pid: process.pid, role: options.role },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination(options.format),
  )
}
