/**
 * A worker without models that speaks the message protocol, for tests of the supervision. Signals trigger its
 * messages: SIGUSR2 reports that retired generations are unloaded, SIGWINCH reports a stall, and SIGHUP sends
 * an invalid message.
 */
import { createServer } from 'node:net'
import { type StartMessage, type ToPrimary, ToWorkerSchema } from '../../../cluster/messages.js'
import { messageOf } from '../../../src/errors.js'
import { listen } from '../../../src/http/listen.js'

const retired: string[] = []

function say(message: ToPrimary | { readonly type: 'nonsense' }): void {
  process.send?.(message)
}

process.on('message', (raw) => {
  const message = ToWorkerSchema.parse(raw)
  if (message.type === 'start') void start(message)
  else if (message.type === 'drain') process.exit(0)
  else if (message.type === 'prepare') {
    const isRefused = message.segment.name === 'refused'
    const problem = isRefused ? { code: 'SELF_CHECK_FAILED' as const, message: 'its output differs' } : null
    // A generation of this name gets no reply.
    if (message.segment.name !== 'endless') say({ type: 'done', id: message.id, problem })
  } else if (message.type === 'change') {
    retired.push(...message.retire)
    say({ type: 'done', id: message.id, problem: null })
    if (process.env.WORKER_PROGRAM_UNLOADS === 'immediately') unload()
  }
})

/** It listens on its port if it has one. */
async function start({ config: { host, port } }: StartMessage): Promise<void> {
  try {
    if (port !== 0) await listen(createServer(), { host, port }, 'inference')
    say({ type: 'ready', port: port === 0 ? 1 : port, failed: [] })
  } catch (thrown) {
    say({ type: 'failed', code: 'ADDRESS_UNAVAILABLE', message: messageOf(thrown) })
    process.disconnect()
  }
}

function unload(): void {
  for (const key of retired.splice(0)) say({ type: 'unloaded', key })
}

process.on('SIGUSR2', unload)
process.on('SIGWINCH', () => say({ type: 'stalled', silentMs: 1000 }))
process.on('SIGHUP', () => say({ type: 'nonsense' }))
process.on('disconnect', () => process.exit(0))
say({ type: 'hello' })
