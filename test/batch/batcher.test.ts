import test from 'ava'
import fc from 'fast-check'
import { Batcher, type BatcherOptions } from '../../src/batch/batcher.js'
import type { Execution, Job } from '../../src/batch/job.js'
import type { BatchingPolicy } from '../../src/batch/queued-model.js'
import { OnecopyError } from '../../src/errors.js'
import { monotonicNs } from '../../src/process/clock.js'
import { dataBytes, type Tensor } from '../../src/tensor.js'

const POLICY: BatchingPolicy = {
  isBatchable: true,
  maxBatchSize: 64,
  preferredBatchSizes: [],
  maxQueueDelayMs: 0,
  queue: { maxRequests: 1000, maxBytes: 1e9 },
}

function floats(name: string, shape: number[], values: number[]): Tensor {
  return { name, datatype: 'FP32', shape, data: Float32Array.from(values) }
}

/** A request of `rows` rows whose values identify request and row. */
function request(id: number, rows: number, width = 2): Job {
  const values = Array.from({ length: rows * width }, (_, i) => id * 1000 + i)
  return { modelKey: 'm', inputs: [floats('x', [rows, width], values)], outputNames: ['y'] }
}

/** An engine that answers `y = 2x + 1` row by row, and lets the test decide when a run ends. */
class FakeEngine {
  readonly executions: Execution[] = []
  readonly #pending: (() => void)[] = []
  readonly #fails: (execution: Execution) => boolean

  constructor(fails: (execution: Execution) => boolean = () => false) {
    this.#fails = fails
  }

  run: BatcherOptions['run'] = (execution) => {
    this.executions.push(execution)
    return new Promise((resolve, reject) => {
      this.#pending.push(() => {
        if (this.#fails(execution)) return reject(new OnecopyError('MODEL_RUN_FAILED', 'a bad row'))
        const [x] = execution.inputs as [Tensor]
        const y = (x.data as Float32Array<ArrayBuffer>).map((value) => value * 2 + 1)
        resolve({
          outputs: [{ ...x, name: 'y', data: y }],
          startedNs: 0,
          computeNs: 1000,
          placement: 'thread',
        })
      })
    })
  }

  get rows(): number[] {
    return this.executions.map(({ inputs }) => inputs[0]?.shape[0] ?? 0)
  }

  /** Completes the oldest run and waits for the consequences. */
  async finishOne(): Promise<void> {
    this.#pending.shift()?.()
    await settle()
  }

  async finishAll(): Promise<void> {
    await settle()
    while (this.#pending.length > 0) await this.finishOne()
  }
}

/** One large request, so that the tuner knows that batches of that size pay off. */
async function warmUp(engine: FakeEngine, batcher: Batcher): Promise<void> {
  void batcher.submit(request(0, 8))
  await engine.finishAll()
  engine.executions.length = 0
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
}

function values(outputs: readonly Tensor[]): number[] {
  return [...((outputs[0] as Tensor).data as Float32Array)]
}

test('an idle engine starts immediately; requests that arrive meanwhile form a batch', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  await warmUp(engine, batcher)
  const first = batcher.submit(request(1, 1))
  await settle()
  t.deepEqual(engine.rows, [1])
  const rest = [2, 3, 4].map((id) => batcher.submit(request(id, id)))
  t.is(batcher.depth, 3)
  await engine.finishOne()
  t.deepEqual(engine.rows, [1, 9])
  await engine.finishAll()
  t.deepEqual(values((await first).outputs), [2001, 2003])
  t.deepEqual(values((await (rest[0] as typeof first)).outputs), [4001, 4003, 4005, 4007])
  t.deepEqual((await (rest[2] as typeof first)).outputs[0]?.shape, [4, 2])
  for (const { inputs, inputBytes } of engine.executions) t.is(inputBytes, dataBytes(inputs))
})

test('every request gets its own rows, regardless of the other requests in its batch', async (t) => {
  const arrival = fc.record({
    rows: fc.integer({ min: 1, max: 9 }),
    width: fc.constantFrom(2, 3),
    finishFirst: fc.boolean(),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(arrival, { minLength: 1, maxLength: 40 }),
      fc.integer({ min: 1, max: 16 }),
      async (arrivals, maxBatchSize) => {
        const engine = new FakeEngine()
        const batcher = new Batcher({ run: engine.run })
        batcher.add('m', { ...POLICY, maxBatchSize })
        const answers: Promise<number[]>[] = []
        for (const [id, { rows, width, finishFirst }] of arrivals.entries()) {
          if (finishFirst) await engine.finishOne()
          answers.push(batcher.submit(request(id, rows, width)).then(({ outputs }) => values(outputs)))
        }
        await engine.finishAll()
        for (const [id, { rows, width }] of arrivals.entries()) {
          const expected = Array.from({ length: rows * width }, (_, i) =>
            Math.fround((id * 1000 + i) * 2 + 1),
          )
          t.deepEqual(await answers[id], expected)
        }
        // A single request may exceed the limit; a batch of several never does.
        const largest = Math.max(maxBatchSize, ...arrivals.map(({ rows }) => rows))
        t.true(engine.rows.every((rows) => rows <= largest))
      },
    ),
    { numRuns: 200, seed: 7 },
  )
})

test('one bad request in a batch fails alone', async (t) => {
  const isBad = ({ inputs }: Execution) => (inputs[0] as Tensor).data.includes(3000 as never)
  const engine = new FakeEngine(isBad)
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  void batcher.submit(request(1, 1))
  await settle()
  const good = batcher.submit(request(2, 1))
  const bad = batcher.submit(request(3, 1))
  const alsoGood = batcher.submit(request(4, 1))
  const refused = t.throwsAsync(bad, { code: 'MODEL_RUN_FAILED' })
  await engine.finishAll()
  t.deepEqual(values((await good).outputs), [4001, 4003])
  t.deepEqual(values((await alsoGood).outputs), [8001, 8003])
  await refused
})

test('a model that turns out not to batch runs requests one at a time from then on', async (t) => {
  const engine = new FakeEngine()
  const unbatchable: string[] = []
  const run: BatcherOptions['run'] = async (execution) => {
    const { outputs, ...times } = await engine.run(execution)
    // One row for the whole batch, as from a reduction.
    const [y] = outputs as [Tensor]
    return {
      outputs: [{ ...y, shape: [1, 2], data: (y.data as Float32Array<ArrayBuffer>).slice(0, 2) }],
      ...times,
    }
  }
  const batcher = new Batcher({ run, onUnbatchable: (modelKey) => unbatchable.push(modelKey) })
  batcher.add('m', POLICY)
  const submitThree = () => [1, 2, 3].map((id) => batcher.submit(request(id, 1)))
  const early = batcher.submit(request(0, 1))
  await settle()
  const answers = [early, ...submitThree()]
  await engine.finishAll()
  t.deepEqual(unbatchable, ['m'])
  t.deepEqual(values((await (answers[3] as typeof early)).outputs), [6001, 6003])
  const later = submitThree()
  await engine.finishAll()
  await Promise.all(later)
  t.deepEqual(engine.rows.slice(-3), [1, 1, 1])
})

test('heavy load on one model does not starve another', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('flooded', { ...POLICY, maxBatchSize: 1 })
  batcher.add('quiet', { ...POLICY, maxBatchSize: 1 })
  for (let i = 0; i < 50; i++) void batcher.submit({ ...request(i, 1), modelKey: 'flooded' })
  await settle()
  await engine.finishOne()
  void batcher.submit({ ...request(1, 1), modelKey: 'quiet' })
  void batcher.submit({ ...request(2, 1), modelKey: 'quiet' })
  const before = engine.executions.length
  for (let i = 0; i < 6; i++) await engine.finishOne()
  const next = engine.executions.slice(before, before + 6).map(({ modelKey }) => modelKey)
  t.is(next.filter((modelKey) => modelKey === 'quiet').length, 2, next.join())
})

test('the queue is limited by requests and bytes, checked before a body is read', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', { ...POLICY, queue: { maxRequests: 2, maxBytes: 1000 } })
  void batcher.submit(request(0, 1))
  await settle()
  void batcher.submit(request(1, 1))
  t.notThrows(() => batcher.checkCapacity('m'))
  void batcher.submit(request(2, 1))
  t.throws(() => batcher.checkCapacity('m'), { code: 'QUEUE_FULL' })
  const error = await t.throwsAsync(batcher.submit(request(3, 1)), { instanceOf: OnecopyError })
  t.is(error?.headers['Retry-After'], '1')

  batcher.add('bytes', { ...POLICY, queue: { maxRequests: 10, maxBytes: 100 } })
  await t.throwsAsync(batcher.submit({ ...request(1, 100), modelKey: 'bytes' }), {
    code: 'REQUEST_TOO_LARGE',
    message: /at most 100 bytes.*got 800/,
  })
  void batcher.submit({ ...request(2, 10), modelKey: 'bytes' })
  await t.throwsAsync(batcher.submit({ ...request(3, 10), modelKey: 'bytes' }), {
    code: 'QUEUE_FULL',
    message: /80 bytes/,
  })
  await engine.finishAll()
})

test('a deadline covers the wait in the queue and the wait for the result', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  const running = batcher.submit({ ...request(1, 1), timeoutMs: 250 })
  await settle()
  const waiting = batcher.submit({ ...request(2, 1), timeoutMs: 5 })
  await t.throwsAsync(waiting, { code: 'DEADLINE_EXCEEDED' })
  await t.throwsAsync(running, { code: 'DEADLINE_EXCEEDED' })
  t.is(batcher.depth, 0)
  await engine.finishAll()
  t.deepEqual(engine.rows, [1], 'what was late never ran')
})

test('a request whose client disconnected is dropped before it is computed', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  void batcher.submit(request(1, 1))
  await settle()
  const gone = batcher.submit({ ...request(2, 1), isCancelled: () => true })
  const stays = batcher.submit(request(3, 1))
  const dropped = t.throwsAsync(gone, { code: 'REQUEST_CANCELLED' })
  await engine.finishAll()
  await dropped
  t.deepEqual(values((await stays).outputs), [6001, 6003])
  t.deepEqual(engine.rows, [1, 1])
})

test('requests run by priority, and the default is in the middle', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', { ...POLICY, maxBatchSize: 1 })
  void batcher.submit(request(0, 1))
  await settle()
  for (const [id, priority] of [
    [1, 3],
    [2, 0],
    [3, 1],
    [4, 2],
  ] as const)
    void batcher.submit({ ...request(id, 1), priority })
  await engine.finishAll()
  const order = engine.executions.map(({ inputs }) => ((inputs[0] as Tensor).data as Float32Array)[0])
  t.deepEqual(order, [0, 3000, 2000, 4000, 1000])
})

test('with a delay in its config, a lone request waits for others', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  // A delay that does not end during the test.
  batcher.add('m', { ...POLICY, maxQueueDelayMs: 60_000, preferredBatchSizes: [2, 4] })
  const lone = batcher.submit(request(1, 1))
  await settle()
  t.deepEqual(engine.rows, [], 'it waits')
  void batcher.submit(request(2, 1))
  await settle()
  t.deepEqual(engine.rows, [2], 'company came')
  await engine.finishAll()
  await lone
})

test('a request without others waits no longer than the delay', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', { ...POLICY, maxQueueDelayMs: 20, preferredBatchSizes: [2, 4] })
  const startedMs = performance.now()
  const alone = batcher.submit(request(1, 1))
  while (engine.rows.length < 1) await settle()
  t.true(performance.now() - startedMs >= 15)
  await engine.finishAll()
  await alone
})

/** Two requests run and two are queued, just before the first batch ends. */
async function twoAndTwo(longestLingerMs?: number): Promise<{ engine: FakeEngine; batcher: Batcher }> {
  const engine = new FakeEngine()
  const run: BatcherOptions['run'] = async (execution) => ({
    ...(await engine.run(execution)),
    computeNs: 1e12,
  })
  const batcher = new Batcher({ run, ...(longestLingerMs === undefined ? {} : { longestLingerMs }) })
  batcher.add('m', POLICY)
  await warmUp(engine, batcher)
  for (const id of [1, 2]) void batcher.submit(request(id, 1))
  await settle()
  for (const id of [3, 4]) void batcher.submit(request(id, 1))
  return { engine, batcher }
}

test('a slow model waits for its recent clients, until all have sent a request', async (t) => {
  // A wait that does not end during the test.
  const { engine, batcher } = await twoAndTwo(60_000)
  await engine.finishOne()
  t.deepEqual(engine.rows, [2], 'two wait, and two are about to come back')
  void batcher.submit(request(5, 1))
  t.deepEqual(engine.rows, [2], 'one came')
  void batcher.submit(request(6, 1))
  t.deepEqual(engine.rows, [2, 4], 'both came: nothing to wait for')
  await engine.finishAll()
})

test('a slow model whose clients do not return continues without them', async (t) => {
  const { engine } = await twoAndTwo()
  await engine.finishOne()
  while (engine.rows.length < 2) await settle()
  t.deepEqual(engine.rows, [2, 2])
  await engine.finishAll()
})

test('a request for another model ends the wait', async (t) => {
  const { engine, batcher } = await twoAndTwo(60_000)
  batcher.add('other', POLICY)
  await engine.finishOne()
  void batcher.submit({ ...request(9, 1), modelKey: 'other' })
  t.is(engine.executions.length, 2)
  await engine.finishAll()
})

test('accepted requests still run after shutdown begins; new ones are rejected', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  const first = batcher.submit(request(1, 1))
  const second = batcher.submit(request(2, 1))
  batcher.shut()
  await t.throwsAsync(batcher.submit(request(3, 1)), { code: 'SHUTTING_DOWN' })
  await engine.finishAll()
  t.deepEqual(values((await first).outputs), [2001, 2003])
  t.deepEqual(values((await second).outputs), [4001, 4003])
})

test('a response that is too large fails only its request in a batch', async (t) => {
  const limit = { bytes: 64, leastElementBytes: [4] }
  const engine = new FakeEngine()
  const batcher = new Batcher({
    run: async (execution) => {
      const result = await engine.run(execution)
      const bytes =
        (result.outputs[0] as Tensor).data.length * (execution.outputLimit?.leastElementBytes[0] ?? 0)
      if (bytes > (execution.outputLimit?.bytes ?? Number.POSITIVE_INFINITY))
        throw new OnecopyError('RESPONSE_TOO_LARGE', `got ${bytes}`)
      return result
    },
    onUnbatchable: () => t.fail('the model is not at fault'),
  })
  batcher.add('m', POLICY)
  await warmUp(engine, batcher)
  void batcher.submit(request(0, 1))
  await settle()
  const limited = (id: number, rows: number) => batcher.submit({ ...request(id, rows), outputLimit: limit })
  const answers = Promise.allSettled([limited(1, 1), limited(2, 30), limited(3, 1)])
  await engine.finishAll()
  const [one, large, three] = await answers
  t.is(one?.status, 'fulfilled')
  t.is(three?.status, 'fulfilled')
  t.like(large, { status: 'rejected', reason: { code: 'RESPONSE_TOO_LARGE', message: 'got 240' } })
  // The limit of a batch is the sum of the limits of its requests.
  const together = Promise.all([limited(4, 4), limited(5, 4), limited(6, 4)])
  await engine.finishAll()
  t.is((await together).length, 3)
  t.true(engine.executions.some(({ outputLimit }) => outputLimit?.bytes === 3 * 64))
})

test('with a stalled engine, running, queued and new requests are answered immediately', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  batcher.add('other', POLICY)
  const running = batcher.submit(request(1, 1))
  await settle()
  const waiting = [batcher.submit(request(2, 1)), batcher.submit({ ...request(3, 1), modelKey: 'other' })]
  const stalled = new OnecopyError('WORKER_STALLED', 'it does not come back', { retryAfterSeconds: 1 })
  batcher.abandon(stalled)
  for (const one of [running, ...waiting, batcher.submit(request(4, 1))])
    t.is(await t.throwsAsync(one), stalled)
  t.is(
    t.throws(() => batcher.checkCapacity('m')),
    stalled,
  )
  t.is(batcher.depth, 0)
  await engine.finishAll()
  t.is(engine.executions.length, 1, 'nothing is run any more, even when it comes back')
})

test('a job whose rows are reduced is never joined, and is with the engine before the one ahead has ended', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  await warmUp(engine, batcher)
  const pooling = { kind: 'mean' as const, lengths: [2] }
  const jobs = [1, 2, 3].map((id) => batcher.submit({ ...request(id, 1), pooling }))
  await settle()
  t.deepEqual(engine.rows, [1, 1], 'one is computed, one is next, one waits')
  t.deepEqual(engine.executions[1]?.pooling, pooling)
  const plain = batcher.submit(request(4, 1))
  await engine.finishOne()
  t.deepEqual(engine.rows, [1, 1, 1])
  await engine.finishOne()
  t.deepEqual(engine.rows, [1, 1, 1], 'a plain job waits for company until the engine is idle')
  await engine.finishAll()
  t.is((await Promise.all(jobs)).length, 3)
  await plain
  t.is(engine.executions.at(-1)?.pooling, null)
})

test('the CPU time of an execution is measured if one of its jobs wants it', async (t) => {
  const engine = new FakeEngine()
  const batcher = new Batcher({ run: engine.run })
  batcher.add('m', POLICY)
  await warmUp(engine, batcher)
  const jobs = [{ measuresCpu: true }, {}, { measuresCpu: true }].map((more, id) =>
    batcher.submit({ ...request(id, 1), ...more }),
  )
  await engine.finishAll()
  await Promise.all(jobs)
  const plain = batcher.submit(request(3, 1))
  await engine.finishAll()
  await plain
  t.deepEqual(engine.rows, [3, 1])
  t.deepEqual(
    engine.executions.map(({ measuresCpu }) => measuresCpu),
    [true, false],
  )
})

/** An engine that computes within the call, as on the event loop, and records what happens. */
function synchronousEngine(events: string[], computeNs = 0): BatcherOptions['run'] {
  return async ({ inputs }) => {
    const [x] = inputs as [Tensor]
    events.push(`run ${x.data[0]}`)
    const startedNs = monotonicNs()
    while (monotonicNs() - startedNs < computeNs);
    return { outputs: [{ ...x, name: 'y' }], startedNs, computeNs, placement: 'event-loop' }
  }
}

test('executions of one turn of the event loop are delivered together', async (t) => {
  const events: string[] = []
  const batcher = new Batcher({ run: synchronousEngine(events) })
  batcher.add('m', { ...POLICY, isBatchable: false })
  const answers = [1, 2, 3].map(async (id) => {
    await batcher.submit(request(id, 1))
    events.push(`answer ${id}`)
  })
  await Promise.all(answers)
  t.deepEqual(events, ['run 1000', 'run 2000', 'run 3000', 'answer 1', 'answer 2', 'answer 3'])
})

test('a result waits at most 5 ms for later executions', async (t) => {
  const events: string[] = []
  const batcher = new Batcher({ run: synchronousEngine(events, 6e6) })
  batcher.add('m', { ...POLICY, isBatchable: false })
  const answers = [1, 2, 3, 4].map(async (id) => {
    await batcher.submit(request(id, 1))
    events.push(`answer ${id}`)
  })
  await Promise.all(answers)
  // The next execution begins before a result is delivered.
  t.true(events.indexOf('answer 1') < events.indexOf('run 3000'), events.join(', '))
  t.true(events.indexOf('answer 2') < events.indexOf('run 4000'), events.join(', '))
})

test('a result does not wait for an execution in the inference thread', async (t) => {
  const events: string[] = []
  const engine = new FakeEngine()
  const onLoop = synchronousEngine(events)
  const batcher = new Batcher({
    run: (execution) => (execution.modelKey === 'm' ? onLoop(execution) : engine.run(execution)),
  })
  batcher.add('m', { ...POLICY, isBatchable: false })
  batcher.add('long', { ...POLICY, isBatchable: false })
  const short = batcher.submit(request(1, 1))
  const long = batcher.submit({ ...request(2, 1), modelKey: 'long' })
  await short
  t.is(engine.executions.length, 1)
  await engine.finishAll()
  await long
})
