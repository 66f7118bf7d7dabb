/** The watch with a fake supervisor and fake stats: tests its decisions. */
import test, { type ExecutionContext } from 'ava'
import type { ProcessState } from '../../../cluster/workers/stats.js'
import { Watch, type WatchOptions } from '../../../cluster/workers/watch.js'
import type { OnecopyError } from '../../../src/errors.js'
import { until } from '../../helpers/waiting.js'
import { recordingLog } from '../fleet.js'

interface Scene {
  checks: number
  requests: number
  state: Partial<ProcessState>
  readonly replaced: string[]
  readonly discarded: OnecopyError[]
  endReplacement: () => void
}

function watchOver(t: ExecutionContext, choices: Partial<WatchOptions> = {}): Scene {
  const worker = { id: 1, pid: process.pid, statsSlot: 0, inheritedRequests: 0, ageMs: 60_000 }
  const scene: Scene = {
    ...{ checks: 0, requests: 0, state: {}, replaced: [], discarded: [], endReplacement: () => {} },
  }
  const supervisor = {
    get ready() {
      scene.checks++
      return [worker]
    },
    replace: (_: unknown, reason: string) => {
      scene.replaced.push(reason)
      return new Promise<void>((resolve) => {
        scene.endReplacement = resolve
      })
    },
    discard: (_: unknown, failure: OnecopyError) => scene.discarded.push(failure),
  }
  const stats = {
    stateOf: () => ({ loopSilentMs: 0, running: null, queueDepth: 0, loopLagSeconds: 0, ...scene.state }),
    requestsIn: () => scene.requests,
  }
  const watch = new Watch({
    supervisor,
    stats,
    log: recordingLog().log,
    stallTimeoutMs: 600,
    maxRequestsPerWorker: 0,
    maxPrivateBytes: 0,
    ...choices,
  } as unknown as WatchOptions)
  t.teardown(() => watch.close())
  return scene
}

test('a worker with a silent event loop is killed, and the running model is reported', async (t) => {
  const scene = watchOver(t)
  scene.state = { loopSilentMs: 10_000, running: { model: 'slow', version: '2', isLoading: false } }
  await until('the detection', () => scene.discarded.length > 0)
  t.is(scene.discarded[0]?.code, 'WORKER_STALLED')
  t.regex(scene.discarded[0]?.message ?? '', /event loop of worker 1 .* while it ran model slow version 2/)
})

test('a suspended primary does not mistake silence for a stall', async (t) => {
  const scene = watchOver(t)
  await until('it checks', () => scene.checks > 2)
  // Blocks the event loop, as after SIGSTOP or in a frozen container: heartbeats are then outdated.
  scene.state = { loopSilentMs: 3000 }
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000)
  const before = scene.checks
  await until('another check', () => scene.checks > before)
  t.deepEqual(scene.discarded, [])
  await until('continued silence to be detected', () => scene.discarded.length > 0)
  t.pass()
})

test('a worker is replaced once, even if several checks request it, and again if needed', async (t) => {
  const scene = watchOver(t, { maxRequestsPerWorker: 10 })
  scene.requests = 10
  await until('the detection', () => scene.replaced.length === 1)
  const before = scene.checks
  await until('more checks', () => scene.checks > before + 3)
  t.deepEqual(scene.replaced, ['max requests'])
  scene.endReplacement()
  await until('the second detection', () => scene.replaced.length === 2)
  t.pass()
})
