/** A process that attaches to a model and follows the orders of its parent. It is killed at any point. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { type AttachedModel, attach } from '../../cluster/index.js'
import { type Order, type Report, type Target, valuesOf } from './orders.js'

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

async function obey(order: Order): Promise<void> {
  if (order.type === 'churn') await churn()
  else if (order.type === 'lease') {
    const socket = connect(join(order.serverFolder, 'attach.sock'))
    socket.write(`${JSON.stringify({ type: 'attach', name: target.model, version: null })}\n`)
    await once(socket, 'data')
    report({ type: 'leased' })
  } else if (order.type === 'attach') {
    model = await attachOnce(order.onSwap)
    for (const name of ['swapped', 'outdated', 'ownerGone', 'swapFailed'] as const)
      model.on(name, () => report({ type: 'event', name }))
    report({ type: 'attached' })
  } else if (order.type === 'run' && model !== undefined) await runOnce(model)
  else if (order.type === 'close') {
    await model?.close()
    report({ type: 'closed' })
    process.disconnect()
  }
}

process.on('message', (order: Order) => {
  obey(order).catch((thrown) =>
    report({ type: 'failed', code: String(thrown.code), message: String(thrown.message) }),
  )
})
