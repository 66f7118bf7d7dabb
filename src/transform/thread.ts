/**
 * The thread of one input transform. It publishes the index of the current item in shared memory, so that its
 * owner can detect a stuck item.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { messageOf, OnecopyError } from '../errors.js'
import { ownThreadId } from '../process/threads.js'
import { DATATYPES, elementCount, type NumericData } from '../tensor.js'
import {
  type EncodeRequest,
  EncodeRequestSchema,
  PLACES,
  ThreadStartSchema,
  type TransformReply,
} from './messages.js'
import { INPUT_TRANSFORMS } from './registry.js'
import { type InputTransform, type RowEncoder, type RowSpec, TransformBroken } from './transform.js'

interface Opened {
  readonly transform: InputTransform
  readonly options: unknown
  readonly progress: Int32Array
  readonly specs: readonly RowSpec[]
  encoder: RowEncoder
}

function say(progress: Int32Array, place: number): void {
  Atomics.store(progress, 0, place)
  Atomics.add(progress, 1, 1)
}

async function open(start: unknown): Promise<Opened> {
  const { kind, options: given, progress: shared } = ThreadStartSchema.parse(start)
  const progress = new Int32Array(shared)
  say(progress, PLACES.opening)
  const transform = INPUT_TRANSFORMS[kind as keyof typeof INPUT_TRANSFORMS] as InputTransform
  const options = transform.options.parse(given)
  const encoder = await transform.open(options)
  say(progress, PLACES.idle)
  return { transform, options, progress, specs: transform.rows(options), encoder }
}

/**
 * Encodes one item. If that breaks the transform, the item is retried on a fresh one, because an earlier item
 * may have broken it unnoticed. After a second failure the item is rejected.
 */
async function encodeItem(
  opened: Opened,
  item: unknown,
  { rows, place }: { readonly rows: readonly NumericData[]; readonly place: number },
): Promise<{ readonly isAccepted: boolean; readonly reopened: number }> {
  const { progress, transform, options } = opened
  for (let reopened = 0; ; ) {
    say(progress, place)
    try {
      return { isAccepted: await opened.encoder.encode(item, rows), reopened }
    } catch (thrown) {
      if (!(thrown instanceof TransformBroken)) throw thrown
      say(progress, PLACES.opening)
      opened.encoder = await transform.open(options)
      if (++reopened === 2) return { isAccepted: false, reopened }
      for (const row of rows) row.fill(0 as never)
    }
  }
}

async function encode(opened: Opened, { id, items, skip }: EncodeRequest): Promise<TransformReply> {
  const { specs, progress } = opened
  const sizes = specs.map(({ shape }) => elementCount(shape))
  const all = specs.map(({ datatype }, i) => {
    const { storage } = DATATYPES[datatype]
    return new storage(items.length * (sizes[i] as number)) as NumericData
  })
  const accepted = new Uint8Array(items.length)
  let count = 0
  let reopened = 0
  for (const [place, item] of items.entries()) {
    if (skip.includes(place)) continue
    const rows = all.map((data, i) => {
      const size = sizes[i] as number
      return data.subarray(count * size, (count + 1) * size) as NumericData
    })
    const { isAccepted, reopened: times } = await encodeItem(opened, item, { rows, place })
    reopened += times
    if (isAccepted) {
      accepted[place] = 1
      count++
      // A rejected item may have written to the rows that the next item uses.
    } else for (const row of rows) row.fill(0 as never)
  }
  say(progress, PLACES.idle)
  const rows = all.map((data, i) =>
    count === items.length ? data : (data.slice(0, count * (sizes[i] as number)) as NumericData),
  )
  return { type: 'encoded', id, accepted, rows, reopened }
}

function failureOf(thrown: unknown): TransformReply {
  // A bug terminates the thread.
  if (!(thrown instanceof OnecopyError)) throw thrown
  return { type: 'failed', code: thrown.code, message: messageOf(thrown) }
}

async function serve(port: MessagePort): Promise<void> {
  let opened: Opened
  try {
    opened = await open(workerData)
  } catch (thrown) {
    port.postMessage(failureOf(thrown))
    return
  }
  let turn = Promise.resolve()
  port.on('message', (message: unknown) => {
    turn = turn.then(async () => {
      const reply = await encode(opened, EncodeRequestSchema.parse(message)).catch(failureOf)
      const transfer = reply.type === 'encoded' ? reply.rows.map(({ buffer }) => buffer) : []
      port.postMessage(reply, transfer)
    })
  })
  port.postMessage({ type: 'opened', threadId: ownThreadId() } satisfies TransformReply)
}

if (parentPort !== null) await serve(parentPort)
