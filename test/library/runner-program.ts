/** A process that attaches to a model and follows the orders of its parent. */
import { readFileSync } from 'node:fs'
import { type AttachedModel, attach } from '../../cluster/index.js'
import type { AttachOptions } from '../../src/library/options.js'

export type Order =
  | { readonly type: 'attach'; readonly name: string; readonly options: AttachOptions }
  | { readonly type: 'run'; readonly input: readonly number[]; readonly shape: readonly number[] }
  | { readonly type: 'close' }

export type Report =
  | { readonly type: 'attached'; readonly version: string }
  | { readonly type: 'ran'; readonly outputs: Readonly<Record<string, readonly number[]>> }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  | { readonly type: 'event'; readonly name: string }
  | { readonly type: 'closed'; readonly privateBytes: number }

let model: AttachedModel | undefined

function report(what: Report): void {
  process.send?.(what)
}

function privateBytes(): number {
  const text = readFileSync('/proc/self/smaps_rollup', 'latin1')
  const kilobytes = (name: string) => Number(text.match(new RegExp(`^${name}:\\s+(\\d+)`, 'm'))?.[1])
  return 1024 * (kilobytes('Private_Clean') + kilobytes('Private_Dirty'))
}

async function obey(order: Order): Promise<void> {
  if (order.type === 'attach') {
    model = await attach(order.name, order.options)
    for (const name of ['swapped', 'outdated', 'ownerGone', 'swapFailed'] as const)
      model.on(name, () => report({ type: 'event', name }))
    report({ type: 'attached', version: model.version })
  } else if (order.type === 'run') {
    const name = model?.inputs[0]?.name ?? ''
    const outputs = await model?.run({ [name]: { data: Float32Array.from(order.input), shape: order.shape } })
    const numbers = Object.entries(outputs ?? {}).map(([key, { data }]) => [key, [...(data as Float32Array)]])
    report({ type: 'ran', outputs: Object.fromEntries(numbers) })
  } else {
    const held = privateBytes()
    await model?.close()
    report({ type: 'closed', privateBytes: held })
    process.disconnect()
  }
}

process.on('message', (order: Order) => {
  obey(order).catch((thrown) =>
    report({ type: 'failed', code: String(thrown.code), message: String(thrown.message) }),
  )
})
