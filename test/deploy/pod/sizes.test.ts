/** Verifies the printed sizes: a pod with exactly these starts, serves, and swaps the model under load. */
import { appendFileSync, cpSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { memoryCgroup, testWithLimits } from '../../helpers/limits.js'
import type { ServerUnderTest } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import { until } from '../../helpers/waiting.js'
import { quantity } from '../kubernetes/quantity.js'
import { makePod } from './pod.js'

const CLIENTS = 4
/** A doc_string of the model, field 6 of ModelProto: changes the content but not the computation. */
const COMMENT = Uint8Array.of(0x32, 1, 0x2e)

const { containers, volumes } = parse(
  readFileSync(join(PROJECT_ROOT, 'deploy', 'kubernetes', 'base', 'deployment.yaml'), 'utf8'),
).spec.template.spec
const { memory, cpu } = containers[0].resources.limits
const { sizeLimit } = volumes.find(({ name }: { name: string }) => name === 'shm').emptyDir

function segmentsIn(server: ServerUnderTest): string[] {
  return server.segments().filter((path) => path.endsWith('model.segment'))
}

testWithLimits(
  'a pod with the sizes of deploy/kubernetes/base serves its model and swaps it under load',
  ['tmpfs', 'memory limit'],
  async (t) => {
    const cgroup = memoryCgroup(t, quantity(memory) as number)
    const pod = makePod(t, `${quantity(sizeLimit)}`)
    if (pod === null) return
    cpSync(join(PROJECT_ROOT, 'models', 'logp'), join(pod.modelsDir, 'logp'), { recursive: true })
    const container = pod.start({
      args: ['--workers', cpu, '--model-control', 'explicit', '--load-model', '*'],
      cgroup: cgroup.procs,
    })
    const { url, adminUrl } = await container.server.ready()
    const body = readFileSync(join(PROJECT_ROOT, 'models', 'logp', 'sample-request.json'))
    const statuses: number[] = []
    let isStopped = false
    t.teardown(() => {
      isStopped = true
    })
    const clients = Array.from({ length: CLIENTS }, async () => {
      while (!isStopped) {
        const response = await fetch(`${url}/v2/models/logp/infer`, { method: 'POST', body })
        await response.arrayBuffer()
        statuses.push(response.status)
      }
    })
    for (let swap = 1; swap <= 2; swap++) {
      appendFileSync(join(pod.modelsDir, 'logp', '1', 'model.onnx'), COMMENT)
      const loaded = await fetch(`${adminUrl}/v2/repository/models/logp/load`, { method: 'POST' })
      t.is(loaded.status, 200, await loaded.text())
      const from = statuses.length
      await until('responses of the new generation', () => statuses.length > from + 100)
      // Until then two generations exist, and a third does not fit.
      await until('the old generation to be unloaded', () => segmentsIn(container.server).length === 1)
    }
    isStopped = true
    await Promise.all(clients)
    t.true(statuses.every((status) => status === 200))
    const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
    t.true(metrics.includes('onecopy_model_changes_total{outcome="loaded"} 2'))
    t.notRegex(metrics, /^onecopy_worker_exits_total\{/m)
    t.true(metrics.includes(`onecopy_memory_limit_bytes ${quantity(memory)}`))
    t.log(`peak: ${Math.round(cgroup.peakBytes() / 2 ** 20)} MiB of ${memory}`)
    t.deepEqual(await container.signal('SIGTERM'), { code: 0, signal: null })
  },
)
