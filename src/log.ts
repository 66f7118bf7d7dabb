/** Structured logs: one JSON object a line on standard error. */
import { pino } from 'pino'

export type Log = import('pino').Logger

export function createLog(options: { readonly level: string; readonly role: string }): Log {
  return pino(
    {
      level: options.level,
      base: { pid: process.pid, role: options.role },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    // Synchronous: a process that dies has said its last line.
    pino.destination({ dest: 2, sync: true }),
  )
}
