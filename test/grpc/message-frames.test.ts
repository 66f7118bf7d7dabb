import test from 'ava'
import { MessageFrames } from '../../src/grpc/message-frames.js'

function framed(bytes: number): Buffer {
  const message = Buffer.alloc(5 + bytes)
  message.writeUInt32BE(bytes, 1)
  return message
}

test('messages are followed however they are cut', (t) => {
  const wire = Buffer.concat([framed(0), framed(3000), framed(1), framed(70_000)])
  for (const step of [1, 2, 5, 7, 4096, wire.length]) {
    const frames = new MessageFrames()
    let last = frames.take(new Uint8Array())
    for (let at = 0; at < wire.length; at += step) last = frames.take(wire.subarray(at, at + step))
    t.deepEqual(last, { incompleteBytes: 0, completeBytes: wire.length, longestBytes: 70_000 }, `${step}`)
  }
})

test('an incomplete message counts its bytes, and small chunks what they cost', (t) => {
  const frames = new MessageFrames()
  const wire = Buffer.concat([framed(10), framed(100_000)])
  t.is(frames.take(wire.subarray(0, 20_015)).incompleteBytes, 20_000)
  t.is(frames.take(wire.subarray(20_015, 20_016)).incompleteBytes, 20_512)
  t.is(frames.take(wire.subarray(20_016)).incompleteBytes, 0)
  // Only the flag of the next one.
  t.is(frames.take(Buffer.alloc(1)).incompleteBytes, 512)
})
