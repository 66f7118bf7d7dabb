import test from 'ava'
import type { OutOfService } from '../../src/errors.js'
import { ModelRecorder } from '../../src/metrics/recorder.js'
import { LoadedModel, type LoadedModelOptions, ServedModels } from '../../src/server/served-models.js'

const STATE: OutOfService = { code: 'SELF_CHECK_FAILED', reason: 'other answers', retryAfterSeconds: 60 }

function loaded(name: string, version: string, generation = 1): LoadedModel {
  return new LoadedModel({
    key: `${name}@${version}#${generation}`,
    ...{ number: 1, name, version, inputs: [], outputs: [], segmentBytes: 0, labels: {} },
    counts: new ModelRecorder(),
  } as unknown as LoadedModelOptions)
}

function serving(...models: LoadedModel[]): ServedModels {
  const served = new ServedModels()
  for (const model of models) {
    served.add(model)
    served.activate(model)
  }
  return served
}

function out(name: string, version: string) {
  return { name, version, state: STATE, counts: new ModelRecorder() }
}

test('a version that is out of service does not affect other versions and models', (t) => {
  const served = serving(loaded('a', '1'), loaded('b', '1'))
  served.takeOut(out('a', '1'))
  t.is(served.outOfService('a')?.state, STATE)
  t.is(served.outOfService('a', '1')?.state, STATE)
  t.is(served.outOfService('b'), null)
  t.true(served.isServing(true))
  served.takeOut(out('b', '1'))
  t.false(served.isServing(false))
  served.putBack({ name: 'a', version: '1' })
  t.is(served.outOfService('a'), null)
  t.true(served.isServing(true))
})

test('without a version, the newest version in service answers', (t) => {
  const served = serving(loaded('a', '9'), loaded('a', '10'))
  t.is(served.find('a')?.version, '10')
  served.takeOut(out('a', '10'))
  t.is(served.find('a')?.version, '9')
  t.is(served.outOfService('a'), null)
  t.is(served.outOfService('a', '10')?.version, '10')
  served.takeOut(out('a', '9'))
  t.is(served.outOfService('a')?.version, '10', 'none is in service: the newest says why')
})

test('a version that was never loaded is listed while it is out of service', (t) => {
  const served = serving(loaded('good', '1'))
  served.takeOut(out('bad', '3'))
  t.deepEqual(served.names(), ['bad', 'good'])
  t.deepEqual(served.versions('bad'), [])
  t.is(served.find('bad'), null)
  t.is(served.outOfService('bad', '3')?.state, STATE)
  t.is(served.outOfService('bad', '4'), null)
  served.putBack({ name: 'bad', version: '3' })
  t.deepEqual(served.names(), ['good'])
})

test('a new generation of a version that is out of service also is, until it is put back', (t) => {
  const served = serving(loaded('a', '1'))
  served.takeOut(out('a', '1'))
  const next = loaded('a', '1', 2)
  served.add(next)
  served.activate(next)
  t.not(served.outOfService('a'), null)
  served.putBack(next)
  t.is(served.find('a'), next)
  t.is(served.outOfService('a'), null)
})

test('without models, readiness depends on whether one is required', (t) => {
  t.true(serving().isServing(false))
  t.false(serving().isServing(true))
})
