import { readFileSync } from 'node:fs'
import test from 'ava'
import { ELEMENT, floats, graph, modelBytes, node, value, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { inferOutputs } from '../helpers/v2-client.js'

const WIDTH = 1536
const WEIGHTS_BYTES = 2 * WIDTH * WIDTH * 4

/** Two Gemm layers of 9.4 MB each. */
function wideModel(): Uint8Array {
  const weight = Float32Array.from({ length: WIDTH * WIDTH }, (_, i) => (((i * 7919) % 1000) - 500) / 1e5)
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['batch', WIDTH])],
      output: [value('y', ELEMENT.float, ['batch', WIDTH])],
      node: [
        node('MatMul', ['x', 'a'], ['h']),
        node('Relu', ['h'], ['r']),
        node('MatMul', ['r', 'b'], ['y']),
      ],
      initializer: [
        floats('a', [WIDTH, WIDTH], weight),
        floats(
          'b',
          [WIDTH, WIDTH],
          weight.map((number) => -number),
        ),
      ],
    }),
  )
}

interface Mapping {
  readonly rssBytes: number
  readonly anonymousBytes: number
  readonly privateBytes: number
}

/** Mappings of the segment in a process, summed. Source: proc_pid_smaps(5). */
function segmentMapping(pid: number): Mapping {
  const sum = { rssBytes: 0, anonymousBytes: 0, privateBytes: 0 }
  let isSegment = false
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isSegment = line.includes('model.segment')
    const [, field, kilobytes] = line.match(/^(\w+):\s+(\d+) kB$/) ?? []
    if (!isSegment || field === undefined) continue
    if (field === 'Rss') sum.rssBytes += Number(kilobytes) * 1024
    if (field === 'Anonymous') sum.anonymousBytes += Number(kilobytes) * 1024
    if (field === 'Private_Clean' || field === 'Private_Dirty') sum.privateBytes += Number(kilobytes) * 1024
  }
  return sum
}

test('workers share one physical copy of the weights: packed kernels are mapped, shared and never copied', async (t) => {
  const models = writeModel(temporaryFolder(t), 'wide', wideModel())
  const { server, url } = await startServer(t, { models, args: ['--workers', '2', '--log-level', 'debug'] })
  const x = {
    name: 'x',
    datatype: 'FP32',
    shape: [1, WIDTH],
    bytes: new Uint8Array(new Float32Array(WIDTH).fill(1).buffer),
  }
  for (let i = 0; i < 8; i++) await inferOutputs({ url, model: 'wide', inputs: [x], encoding: 'binary' })
  const pids = server.log
    .filter((line) => line.msg === 'worker ready')
    .map((line) => line.workerPid as number)
  t.is(pids.length, 2)
  for (const pid of pids) {
    const mapping = segmentMapping(pid)
    t.true(
      mapping.rssBytes >= WEIGHTS_BYTES,
      `expected ${WEIGHTS_BYTES} bytes of weights mapped, got ${mapping.rssBytes}`,
    )
    t.is(mapping.anonymousBytes, 0, 'a private copy of a page')
    // Pages that only one worker has touched so far: headers and read-ahead, not weights.
    t.true(
      mapping.privateBytes < WEIGHTS_BYTES / 20,
      `${mapping.privateBytes} bytes are mapped by only one worker`,
    )
  }
  await stopCleanly(t, server)
})
