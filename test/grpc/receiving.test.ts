import { once } from 'node:events'
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { create, toBinary } from '@bufbuild/protobuf'
import test, { type ExecutionContext } from 'ava'
import { ModelInferRequestSchema } from '../../src/grpc/schema/inference_pb.js'
import { addRequest, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { until, withinDeadline } from '../helpers/waiting.js'

const MIB = 1024 * 1024
const INFER = '/inference.GRPCInferenceService/ModelInfer'
const STREAM = '/inference.GRPCInferenceService/ModelStreamInfer'

/** A request of about `bytes`, as it is on the wire. */
function framed(bytes: number): Buffer {
  const values = Array.from({ length: 2 * Math.floor(bytes / 8) }, () => 1)
  const message = toBinary(ModelInferRequestSchema, create(ModelInferRequestSchema, addRequest(values)))
  const prefix = Buffer.alloc(5)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

const LARGE = framed(0.95 * MIB)
/** Fits beside one incomplete large message, not beside two. */
const PROBE = framed(0.3 * MIB)

interface Scene {
  readonly address: string
  readonly session: ClientHttp2Session
  open(path?: string, headers?: Record<string, string>): ClientHttp2Stream
  /** The headers that answer a whole request. */
  probe(): Promise<Record<string, string>>
  isFull(): Promise<boolean>
  untilFree(): Promise<void>
}

/**
 * Writes, and resolves when the server has the bytes: it answers a ping after the frames before it.
 */
async function arrive(stream: ClientHttp2Stream, bytes: Buffer): Promise<void> {
  await new Promise((resolve) => stream.write(bytes, resolve))
  await new Promise((resolve) => stream.session?.ping(resolve))
}

/** Two incomplete large messages fill what the worker may hold. */
async function withScene(
  t: ExecutionContext,
  args: readonly string[],
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const models = writeModel(temporaryFolder(t), 'add', addModel())
  const sizes = ['--max-body', '1MiB', '--max-receiving', '2MiB', '--workers', '1', '--grpc-port', '0']
  const { server } = await startServer(t, { models, args: [...sizes, ...args] })
  const { grpcPort } = await server.logged(({ msg, role }) => msg === 'ready' && role === 'primary')
  const address = `127.0.0.1:${grpcPort}`
  // Node.js counts what its client did not send of refused calls against this limit.
  const session = connect(`http://${address}`, { maxSessionMemory: Number.MAX_SAFE_INTEGER })
  const openOn = (on: ClientHttp2Session, path = INFER, headers: Record<string, string> = {}) => {
    const common = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' }
    const stream = on.request({ ...common, ...headers }, { endStream: false })
    stream.on('error', () => {})
    return stream
  }
  const probe = async () => {
    const stream = openOn(session)
    stream.end(PROBE)
    const [headers] = (await withinDeadline('the answer to a probe', once(stream, 'response'))) as [
      Record<string, string>,
    ]
    stream.resume()
    if (!stream.closed) await withinDeadline('the end of a probe', once(stream, 'close'))
    return headers
  }
  const isFull = async () => (await probe())['x-error-code'] === 'RECEIVE_BUFFER_FULL'
  await work({
    ...{ address, session, probe },
    open: (path, headers) => openOn(session, path, headers),
    isFull,
    untilFree: () => until('there is room', async () => !(await isFull())),
  })
  session.destroy()
  await stopCleanly(t, server)
}

const most = (bytes: Buffer) => bytes.subarray(0, Math.floor(0.95 * bytes.length))
const rest = (bytes: Buffer) => bytes.subarray(Math.floor(0.95 * bytes.length))

test.serial('incomplete messages over all streams of a worker are limited, with both numbers', async (t) => {
  await withScene(t, [], async ({ address, session, open, probe, isFull, untilFree }) => {
    const [first, second] = [open(), open(STREAM)]
    await arrive(first, most(LARGE))
    await arrive(second, most(LARGE))
    t.true(await isFull())
    const refused = await probe()
    t.is(refused['grpc-status'], '8')
    t.is(refused['retry-after'], '1')
    const got = /at most 2097152 bytes of incomplete messages .*--max-receiving\), got (\d+)/.exec(
      decodeURI(refused['grpc-message'] ?? ''),
    )
    t.true(Number(got?.[1]) > 2 * MIB, refused['grpc-message'])
    // Refused bytes are read and dropped: the window of the connection stays open.
    for (let i = 0; i < 50; i++) t.true(await isFull())
    // The client's library sees the same, and small requests pass.
    const client = new GrpcClient(address)
    const large = Array.from({ length: 80_000 }, () => 1)
    const failed = await t.throwsAsync(client.infer(addRequest(large)), { instanceOf: GrpcFailure })
    t.deepEqual([failed?.status, failed?.code], ['RESOURCE_EXHAUSTED', 'RECEIVE_BUFFER_FULL'])
    await client.infer(addRequest([1, 2]))
    client.close()

    // What was refused had no effect on the others.
    first.end(rest(LARGE))
    const [answer] = (await withinDeadline('the answer', once(first, 'response'))) as [Record<string, string>]
    t.is(answer['grpc-status'], undefined)
    await untilFree()
    second.end(rest(LARGE))
    await withinDeadline('the response of the stream', once(second, 'response'))
    t.false(session.destroyed)
  })
})

test.serial(
  'a compressed message counts with what it has become, until its client ends its side',
  async (t) => {
    await withScene(t, [], async ({ open, isFull, untilFree }) => {
      const packed = gzipSync(LARGE.subarray(5))
      const prefix = Buffer.alloc(5)
      prefix[0] = 1
      prefix.writeUInt32BE(packed.length, 1)
      const headers = { 'grpc-encoding': 'gzip' }
      const calls = [open(INFER, headers), open(INFER, headers)]
      for (const call of calls) await arrive(call, Buffer.concat([prefix, packed]))
      await until('both are decompressed', isFull)
      const third = open(INFER, headers)
      third.write(Buffer.concat([prefix, packed]))
      const [refused] = (await withinDeadline('the refusal', once(third, 'response'))) as [
        Record<string, string>,
      ]
      t.like(refused, { 'grpc-status': '8', 'x-error-code': 'RECEIVE_BUFFER_FULL' })
      for (const call of calls) {
        call.end()
        const [answer] = (await withinDeadline('the answer', once(call, 'response'))) as [
          Record<string, string>,
        ]
        t.is(answer['grpc-status'], undefined)
      }
      await untilFree()
    })
  },
)

test.serial('a call that ends in any way releases what was held of its message', async (t) => {
  await withScene(t, [], async ({ address, open, isFull, untilFree }) => {
    const kept = open()
    await arrive(kept, most(LARGE))
    const ways: Record<string, () => Promise<unknown>> = {
      'the client resets a call': async () => {
        const call = open()
        await arrive(call, most(LARGE))
        t.true(await isFull())
        call.close(8)
      },
      'the client resets a stream': async () => {
        const call = open(STREAM)
        await arrive(call, most(LARGE))
        t.true(await isFull())
        call.close(8)
      },
      'the connection is lost': async () => {
        const other = connect(`http://${address}`)
        other.on('error', () => {})
        const call = other.request({ ':method': 'POST', ':path': INFER, 'content-type': 'application/grpc' })
        call.on('error', () => {})
        await arrive(call, most(LARGE))
        t.true(await isFull())
        other.destroy()
      },
      "the call's deadline passes, and its client leaves it open": async () => {
        const call = open(INFER, { 'grpc-timeout': '1500m' })
        await arrive(call, most(LARGE))
        t.true(await isFull())
      },
      'the message is too large for --max-body': async () => {
        const call = open(STREAM)
        const head = Buffer.alloc(5)
        head.writeUInt32BE(2 * MIB, 1)
        // The first message is answered, the second is refused by its length.
        call.write(Buffer.concat([framed(8), head]))
        await once(call, 'close')
        t.is(call.rstCode, 0)
      },
      'a whole message, until the client ends its side': async () => {
        const call = open()
        await arrive(call, LARGE)
        t.true(await isFull())
        call.end()
      },
    }
    for (const [name, way] of Object.entries(ways)) {
      await way()
      await t.notThrowsAsync(untilFree(), name)
    }
    kept.close()
  })
})

test.serial(
  'an incomplete message has a deadline within a stream, too; an idle stream has none',
  async (t) => {
    await withScene(t, ['--request-timeout', '1s'], async ({ address, open }) => {
      const client = new GrpcClient(address)
      const idle = client.stream()
      const ended = async (stream: ClientHttp2Stream) => {
        const [headers] = (await withinDeadline('the end', once(stream, 'response'))) as [
          Record<string, string>,
        ]
        t.like(headers, { 'grpc-status': '4', 'x-error-code': 'REQUEST_TIMEOUT' })
        await withinDeadline('the reset', once(stream, 'close'))
      }
      const [part, whole] = [open(STREAM), open()]
      await arrive(part, most(LARGE))
      // A whole message of a call that is not ended is not forgotten either.
      whole.write(framed(8))
      await Promise.all([ended(part), ended(whole)])
      idle.write(create(ModelInferRequestSchema, addRequest([1, 2])))
      await withinDeadline('the answer of the idle stream', once(idle, 'data'))
      idle.end()
      client.close()
    })
  },
)
