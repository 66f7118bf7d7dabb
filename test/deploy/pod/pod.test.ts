import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { memoryCgroup, testWithLimits } from '../../helpers/limits.js'
import {
  addModel,
  ELEMENT,
  graph,
  modelBytes,
  node,
  slowModel,
  value,
  wideModel,
  writeModel,
} from '../../helpers/onnx-builder.js'
import { until } from '../../helpers/waiting.js'
import { makePod } from './pod.js'

const MEBIBYTE = 1024 * 1024

async function ask(url: string, model: string, input: object): Promise<Response> {
  const body = JSON.stringify({ inputs: [input] })
  return await fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body })
}

const addInput = { name: 'x', datatype: 'FP32', shape: [1, 2], data: [1, 1] }

/** `y` = the largest product of any two of n numbers; computes n x n products. */
function squaringModel(): Uint8Array {
  return modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['n', 1])],
      output: [value('y', ELEMENT.float, [1, 1])],
      node: [
        node('Transpose', ['x'], ['row']),
        node('Mul', ['x', 'row'], ['products']),
        node('ReduceMax', ['products'], ['y']),
      ],
    }),
  )
}

testWithLimits(
  'a model that is too large for /dev/shm fails the start with the sizes',
  ['tmpfs'],
  async (t) => {
    const pod = makePod(t, '64m')
    if (pod === null) return
    writeModel(pod.modelsDir, 'large', wideModel(48 * MEBIBYTE))
    const { server } = pod.start({ args: ['--workers', '1'] })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find(({ level }) => level === 'fatal')
    t.is(fatal?.code, 'SEGMENT_SPACE')
    t.regex(fatal?.msg ?? '', /large.* needs 100\.\d MB .* \d+\.\d MB are free: raise .*sizeLimit/)
    t.deepEqual(server.segments(), [])
  },
)

testWithLimits(
  'a memory limit that is too small fails the start with the sizes',
  ['tmpfs', 'memory limit'],
  async (t) => {
    const cgroup = memoryCgroup(t, 200e6)
    const pod = makePod(t, '128m')
    if (pod === null) return
    writeModel(pod.modelsDir, 'wide', wideModel(16 * MEBIBYTE))
    const { server } = pod.start({ args: ['--workers', '2'], cgroup: cgroup.procs })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find(({ level }) => level === 'fatal')
    t.is(fatal?.code, 'MEMORY_LIMIT')
    t.regex(
      fatal?.msg ?? '',
      /at least 213\.\d MB \(segments 33\.\d MB, 2 workers of 60\.0 MB.*allows only 200\.0 MB/,
    )
    t.deepEqual(server.segments(), [])
  },
)

testWithLimits(
  'serves as PID 1 without root, capabilities and a writable root; SIGTERM drains, exit code 0, nothing is left',
  ['tmpfs'],
  async (t) => {
    const pod = makePod(t, '64m')
    if (pod === null) return
    writeModel(pod.modelsDir, 'slow', slowModel())
    const container = pod.start({ args: ['--workers', '1'] })
    const { url, adminUrl } = await container.server.ready()
    t.is((await container.status('NSpid')).split('\t').at(-1), '1')
    t.is(await container.status('Uid'), '1000\t1000\t1000\t1000')
    t.is(await container.status('CapBnd'), '0000000000000000')
    t.is(await container.status('NoNewPrivs'), '1')
    const answers = Array.from({ length: 2 }, () =>
      ask(url, 'slow', { name: 'iterations', datatype: 'INT64', shape: [], data: [10_000] }),
    )
    await until('one request to run while the other is queued', async () => {
      const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
      return metrics.includes('onecopy_queue_depth 1')
    })
    const exited = container.signal('SIGTERM')
    await until(
      'the server to be not ready',
      async () => (await fetch(`${adminUrl}/v2/health/ready`)).status === 503,
    )
    t.deepEqual(
      (await Promise.all(answers)).map(({ status }) => status),
      [200, 200],
    )
    t.deepEqual(await exited, { code: 0, signal: null })
    t.deepEqual(container.server.segments(), [])
  },
)

testWithLimits(
  'after SIGKILL the next container adopts or removes the segments in /dev/shm',
  ['tmpfs'],
  async (t) => {
    const pod = makePod(t, '64m')
    if (pod === null) return
    writeModel(pod.modelsDir, 'wide', wideModel(8 * MEBIBYTE))
    const killed = pod.start({ args: ['--workers', '1'] })
    await killed.server.ready()
    await killed.killFrozen()
    const left = killed.server.segments().filter((path) => path.endsWith('model.segment'))
    t.is(left.length, 1)

    const adopting = pod.start({ args: ['--workers', '1'] })
    const { url } = await adopting.server.ready()
    t.true(adopting.server.log.some(({ msg }) => msg === 'segment adopted from a dead server'))
    t.is((await fetch(`${url}/v2/models/wide/ready`)).status, 200)
    t.is(adopting.server.segments().filter((path) => path.endsWith('model.segment')).length, 1)
    // Not only its PID 1: a worker that notices removes the segments itself.
    await adopting.killFrozen()

    rmSync(join(pod.modelsDir, 'wide'), { recursive: true })
    writeModel(pod.modelsDir, 'other', addModel())
    const sweeping = pod.start({ args: ['--workers', '1'] })
    await sweeping.server.ready()
    t.true(sweeping.server.log.some(({ msg }) => msg === 'removed the segments of a dead server'))
    t.false(sweeping.server.segments().some((path) => path.includes('wide@')))
    t.deepEqual(await sweeping.signal('SIGTERM'), { code: 0, signal: null })
    t.deepEqual(readdirSync(sweeping.server.segmentDir), [])
  },
)

testWithLimits(
  'a worker killed by the kernel for its memory is replaced, and the others keep serving',
  ['tmpfs', 'memory limit'],
  async (t) => {
    // Its limit is lowered once workers have taken theirs from it: an allocation beyond that would fail by itself.
    const cgroup = memoryCgroup(t, 6e9)
    const pod = makePod(t, '64m')
    if (pod === null) return
    writeModel(pod.modelsDir, 'squares', squaringModel())
    writeModel(pod.modelsDir, 'add', addModel())
    const container = pod.start({ args: ['--workers', '2'], cgroup: cgroup.procs })
    const { url, adminUrl } = await container.server.ready()
    cgroup.limit(450e6)
    const count = 20_000
    const input = {
      name: 'x',
      datatype: 'FP32',
      shape: [count, 1],
      data: Array.from({ length: count }, () => 1),
    }
    // Needs 1.6 GB for the products.
    await t.throwsAsync(ask(url, 'squares', input))
    const ended = await container.server.logged(
      ({ msg }) => msg === 'worker killed by the kernel: out of memory',
    )
    t.like(ended, { how: 'SIGKILL', model: 'squares' })
    t.is((await ask(url, 'add', addInput)).status, 200)
    await until('the worker to be replaced', async () => {
      const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
      return (
        metrics.includes('onecopy_workers_ready 2') &&
        metrics.includes('onecopy_worker_exits_total{reason="OOM_KILLED"} 1')
      )
    })
    t.deepEqual(await container.signal('SIGTERM'), { code: 0, signal: null })
    t.deepEqual(container.server.segments(), [])
  },
)
