/** The watch over fakes at its two seams, the supervisor and the stats: how they look is what is tested. */
import test, { type ExecutionContext } from 'ava'
import type { ProcessState } from '../../../cluster/workers/stats.js'
import { Watch, type WatchOptions } from '../../../cluster/workers/watch.js'
import type { OnecopyError } from '../../../src/errors.js'
import { until } from '../../helpers/waiting.js'
import { recordingLog } from '../fleet.js'

interface Scene {
  looks: number
  requests: number
  state: Partial<ProcessState>
  readonly replaced: string[]
  readonly condemned: OnecopyError[]
  endReplacement: () => void
}

function watchOver(t: ExecutionContext, choices: Partial<WatchOptions> = {}): Scene {
  const worker = { id: 1, pid: process.pid, statsSlot: 0, inheritedRequests: 0, ageMs: 60_000 }
  const scene: Scene = {
    ...{ looks: 0, requests: 0, state: {}, replaced: [], condemned: [], endReplacement: () => {} },
  }
  const supervisor = {
    get ready() {
      scene.looks++
      return [worker]
    },
    replace: (_: unknown, reason: string) => {
      scene.replaced.push(reason)
      return new Promise<void>((resolve) => {
        scene.endReplacement = resolve
      })
    },
    discard: (_: unknown, failure: OnecopyError) => scene.condemned.push(failure),
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

test('a worker whose event loop is silent is ended, with the model that ran', async (t) => {
  const scene = watchOver(t)
  scene.state = { loopSilentMs: 10_000, running: { model: 'slow', version: '2', isLoading: false } }
  await until('it is found', () => scene.condemned.length > 0)
  t.is(scene.condemned[0]?.code, 'WORKER_STALLED')
  t.regex(scene.condemned[0]?.message ?? '', /event loop of worker 1 .* while model slow version 2 ran/)
})

test('a primary that did not run itself takes no silence for a stall', async (t) => {
  const scene = watchOver(t)
  await until('it looks', () => scene.looks > 2)
  // As after a SIGSTOP or a frozen container: its loop stands, and what it finds then is old.
  scene.state = { loopSilentMs: 3000 }
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2000)
  const before = scene.looks
  await until('it looks again', () => scene.looks > before)
  t.deepEqual(scene.condemned, [])
  await until('it goes on being silent', () => scene.condemned.length > 0)
  t.pass()
})

test('a worker is replaced once, however many looks find it worn out, and again when it is needed', async (t) => {
  const scene = watchOver(t, { maxRequestsPerWorker: 10 })
  scene.requests = 10
  await until('it is found', () => scene.replaced.length === 1)
  const before = scene.looks
  await until('more looks are taken', () => scene.looks > before + 3)
  t.deepEqual(scene.replaced, ['max requests'])
  scene.endReplacement()
  await until('it is found again', () => scene.replaced.length === 2)
  t.pass()
})
