/** A process that attaches to a model on command of its parent. It can be killed at any point. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type AttachedModel, attach } from '../../cluster/index.js'
import { type Command, type Report, type Target, valuesOf } from './commands.js'

const target = JSON.parse(process.argv[2] ?? '') as Target
let model: AttachedModel | undefined

function report(what: Report): void {
  process.send?.(what)
}

async function attachOnce(onSwap: 'stay' | 'follow'): Promise<AttachedModel> {
  return await attach(target.model, { segmentDir: target.segmentDir, onSwap })
}

async function runOnce(attached: AttachedModel): Promise<void> {
  report({ type: 'ran', values: await valuesOf(attached, target) })
}

async function churn(): Promise<never> {
  for (;;) {
    const attached = await attachOnce('stay')
    await runOnce(attached)
    await attached.close()
  }
}

async function execute(command: Command): Promise<void> {
  if (command.type === 'churn') await churn()
  else if (command.type === 'lease') {
    const socket = connect(join(command.serverFolder, 'attach.sock'))
    socket.write(`${JSON.stringify({ type: 'attach', name: target.model, version: null })}\n`)
    await once(socket, 'data')
    report({ type: 'leased' })
  } else if (command.type === 'attach') {
    model = await attachOnce(command.onSwap)
    for (const name of ['swapped', 'outdated', 'ownerGone', 'swapFailed'] as const)
      model.on(name, () => report({ type: 'event', name }))
    report({ type: 'attached' })
  } else if (command.type === 'run' && model !== undefined) await runOnce(model)
  else if (command.type === 'close') {
    await model?.close()
    report({ type: 'closed' })
    process.disconnect()
  }
}

process.on('message', (command: Command) => {
  execute(command).catch((thrown) =>
    report({ type: 'failed', code: String(thrown.code), message: String(thrown.message) }),
  )
})
