/** A real model in a real engine: both placements give the same results. */
import test, { type ExecutionContext } from 'ava'
import { Engine, type LoadableModel } from '../../src/engine/engine.js'
import type { Tensor } from '../../src/tensor.js'
import { crashingModel, ELEMENT, graph, modelBytes, node, value } from '../helpers/onnx-builder.js'

const SPEC = { datatype: 'FP32', shape: [-1, 2] } as const

function loadable(bytes: Uint8Array): LoadableModel {
  return {
    graph: Uint8Array.from(bytes),
    folder: '/nowhere',
    header: {
      form: 'original',
      externalDataFolder: null,
      inputs: [{ name: 'x', ...SPEC }],
      outputs: [{ name: 'y', ...SPEC }],
    },
  }
}

const SINE = modelBytes(
  graph({
    input: [value('x', ELEMENT.float, ['batch', 2])],
    output: [value('y', ELEMENT.float, ['batch', 2])],
    node: [node('Sin', ['x'], ['y'])],
  }),
)

function input(rows = 1): Tensor {
  const data = Float32Array.from({ length: rows * 2 }, (_, i) => i / 7)
  return { name: 'x', datatype: 'FP32', shape: [rows, 2], data }
}

async function startEngine(t: ExecutionContext, budgetMs: number): Promise<Engine> {
  const engine = new Engine()
  t.teardown(async () => await engine.close())
  engine.place({ budgetNs: budgetMs * 1e6 })
  await engine.load('sine', loadable(SINE), { threads: 1 })
  return engine
}

test('CPU time is measured where it is wanted, in both placements', async (t) => {
  const engine = await startEngine(t, 1000)
  const run = async (measuresCpu: boolean) => await engine.run('sine', [input()], ['y'], { measuresCpu })
  for (const placement of ['thread', 'event-loop']) {
    const wanted = await run(true)
    t.is(typeof wanted.cpuNs, 'number', placement)
    t.is((await run(false)).cpuNs, undefined, placement)
    if (placement === 'thread')
      engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY })
    for (let i = 0; i < 4; i++) await run(true)
    t.is((await run(true)).placement, 'event-loop')
  }
})

test('short executions move to the event loop, with bitwise identical results', async (t) => {
  const engine = await startEngine(t, 1000)
  const run = async () => await engine.run('sine', [input()], ['y'])
  const first = await run()
  t.is(first.placement, 'thread')
  t.true(engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY }))
  const placements = [(await run()).placement, (await run()).placement]
  t.deepEqual(placements, ['thread', 'thread'], 'its cost is not known yet')
  const later = await run()
  t.is(later.placement, 'event-loop')
  t.deepEqual(later.outputs[0]?.data, first.outputs[0]?.data)
  t.deepEqual(later.outputs[0]?.shape, [1, 2])
  t.true(later.computeNs > 0 && later.startedNs > first.startedNs)
})

test('unknown sizes and runs during loading stay in the thread', async (t) => {
  const engine = await startEngine(t, 1000)
  for (let i = 0; i < 4; i++) await engine.run('sine', [input()], ['y'])
  t.true(engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY }))
  t.is((await engine.run('sine', [input()], ['y'])).placement, 'event-loop')
  t.is((await engine.run('sine', [input(4096)], ['y'])).placement, 'thread')
  t.is((await engine.run('sine', [input()], ['y'], { isProving: true })).placement, 'thread')
})

test('with a budget of 0 there is no second session', async (t) => {
  const engine = await startEngine(t, 0)
  for (let i = 0; i < 4; i++) await engine.run('sine', [input()], ['y'])
  t.false(engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY }))
  t.is((await engine.run('sine', [input()], ['y'])).placement, 'thread')
})

test('a model whose load would block the event loop for too long has no second session', async (t) => {
  const engine = await startEngine(t, 1000)
  for (let i = 0; i < 4; i++) await engine.run('sine', [input()], ['y'])
  t.false(engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: 0 }))
  t.is((await engine.run('sine', [input()], ['y'])).placement, 'thread')
})

test('a failure on the event loop affects only that run', async (t) => {
  const engine = await startEngine(t, 1000)
  for (let i = 0; i < 4; i++) await engine.run('sine', [input()], ['y'])
  t.true(engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY }))
  const wrong: Tensor = { ...input(), shape: [1, 1, 2] }
  await t.throwsAsync(engine.run('sine', [wrong], ['y'], { isAlone: true }), { code: 'MODEL_RUN_FAILED' })
  t.is((await engine.run('sine', [input()], ['y'])).placement, 'event-loop')
})

test('an unloaded model is removed from thread and event loop', async (t) => {
  const engine = await startEngine(t, 1000)
  for (let i = 0; i < 4; i++) await engine.run('sine', [input()], ['y'])
  engine.loadOnLoop('sine', loadable(SINE), { threads: 1, longestMs: Number.POSITIVE_INFINITY })
  await engine.unload('sine')
  await t.throwsAsync(engine.run('sine', [input()], ['y']), { code: 'MODEL_NOT_READY' })
})

test('a model that the runtime cannot load is rejected with the message of the runtime', async (t) => {
  const engine = await startEngine(t, 1000)
  const broken = loadable(crashingModel().subarray(0, 40))
  await t.throwsAsync(engine.load('broken', broken, { threads: 1 }), { code: 'MODEL_UNSUPPORTED' })
})
