import test from 'ava'
import { EXIT } from '../../../cluster/exit-codes.js'
import { type EndFacts, endOf } from '../../../cluster/workers/worker-end.js'
import { OnecopyError } from '../../../src/errors.js'

const STALLED = new OnecopyError('WORKER_STALLED', 'silent')

function end(...facts: Partial<EndFacts>[]) {
  const none = { exitCode: null, signal: null, failure: null, wasKilledHere: false, wasRunning: false }
  return endOf(Object.assign({ ...none, takeOomKill: () => false }, ...facts))
}

for (const signal of ['SIGFPE', 'SIGSEGV', 'SIGABRT', 'SIGBUS', 'SIGILL']) {
  test(`${signal} is a runtime fault during inference, and a fault of the process otherwise`, (t) => {
    t.is(end({ signal }, { wasRunning: true }), 'runtime fault')
    t.is(end({ signal }), 'fault')
  })
}

test('SIGKILL is classified by its sender, during inference or not', (t) => {
  const wasRunning = true
  t.is(end({ signal: 'SIGKILL' }, { wasRunning }), 'killed from outside')
  t.is(end({ signal: 'SIGKILL' }, { wasRunning, takeOomKill: () => true }), 'out of memory')
  t.is(end({ signal: 'SIGKILL', wasKilledHere: true }, { wasRunning }), 'killed by the server')
  t.is(end({ signal: 'SIGKILL', wasKilledHere: true, failure: STALLED }), 'killed by the server')
})

test('a kill by the server does not account for an OOM kill', (t) => {
  let asked = 0
  const takeOomKill = () => {
    asked++
    return true
  }
  end({ signal: 'SIGKILL', wasKilledHere: true }, { takeOomKill })
  end({ signal: 'SIGSEGV' }, { takeOomKill })
  t.is(asked, 0)
})

test('other signals come from outside, and are not a fault of the running model', (t) => {
  for (const signal of ['SIGTERM', 'SIGQUIT', 'SIGUSR2', 'SIGALRM'])
    t.is(end({ signal }, { wasRunning: true }), 'killed from outside', signal)
})

test('the exit code distinguishes a requested end, a bug and a failed start', (t) => {
  t.is(end({ exitCode: 0 }), 'ended from outside')
  t.is(end({ exitCode: EXIT.bug }, { wasRunning: true }), 'bug')
  t.is(end({ exitCode: 1, failure: new OnecopyError('ADDRESS_UNAVAILABLE', 'taken') }), 'failed to start')
  t.is(end({ exitCode: 1 }), 'unknown')
})
