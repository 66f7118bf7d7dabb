import test from 'ava'
import {
  Breakers,
  type BreakersOptions,
  type Disabled,
  LONGEST_BACKOFF_MS,
  SHORTEST_TRIAL_MS,
  WINDOW_MS,
} from '../../../cluster/workers/breaker.js'

const FIRST_BACKOFF_MS = 5000
const MODEL = { model: 'm', version: '1' }
const OTHER = { model: 'm', version: '2' }

/** A manual clock: advances on command and runs due timers in order. */
class TestClock {
  nowMs = 0
  #due: { atMs: number; work: () => void }[] = []

  after = (delayMs: number, work: () => void): (() => void) => {
    const one = { atMs: this.nowMs + delayMs, work }
    this.#due.push(one)
    return () => {
      this.#due = this.#due.filter((other) => other !== one)
    }
  }

  pass(ms: number): void {
    const endMs = this.nowMs + ms
    for (;;) {
      const next = this.#due.sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined || next.atMs > endMs) break
      this.#due.shift()
      this.nowMs = next.atMs
      next.work()
    }
    this.nowMs = endMs
  }

  get waiting(): number {
    return this.#due.length
  }
}

function makeBreakers(options: Partial<BreakersOptions> = {}) {
  const clock = new TestClock()
  const notified: { key: string; disabled: Disabled | null }[] = []
  const failures: string[] = []
  const recovered: string[] = []
  const breakers = new Breakers({
    failureLimit: 3,
    firstBackoffMs: FIRST_BACKOFF_MS,
    nowMs: () => clock.nowMs,
    after: clock.after,
    onFailure: ({ model, version }, cause) => failures.push(`${model}@${version} ${cause}`),
    onDisabled: ({ model, version }, disabled) => notified.push({ key: `${model}@${version}`, disabled }),
    onRecovered: ({ model, version }) => recovered.push(`${model}@${version}`),
    ...options,
  })
  const crash = (times: number, model = MODEL) => {
    for (let i = 0; i < times; i++) {
      breakers.record({ ...model, cause: 'crash', how: 'SIGFPE' })
      breakers.replaced(model)
    }
  }
  return { clock, notified, failures, recovered, breakers, crash }
}

test('a model is disabled at the limit, and not before', (t) => {
  const { breakers, notified, crash } = makeBreakers()
  crash(2)
  t.is(breakers.disabled(MODEL), null)
  crash(1)
  const disabled = breakers.disabled(MODEL)
  t.like(disabled, { untilMs: FIRST_BACKOFF_MS, isLoaded: false })
  t.regex(disabled?.reason ?? '', /disabled for 5\.0 s: it crashed or stalled a worker 3 times .*SIGFPE/)
  t.deepEqual(notified.at(-1), { key: 'm@1', disabled })
})

test('below the limit a model is suspended until the crashed worker is replaced', (t) => {
  const { breakers, notified } = makeBreakers()
  breakers.record({ ...MODEL, cause: 'crash', how: 'SIGFPE' })
  const held = breakers.disabled(MODEL)
  t.like(held, { isLoaded: true, reason: 'a worker is being replaced after a crash (SIGFPE)' })
  breakers.record({ ...MODEL, cause: 'crash', how: 'SIGFPE' })
  breakers.replaced(MODEL)
  t.not(breakers.disabled(MODEL), null, 'the other worker is not replaced yet')
  t.not(notified.at(-1)?.disabled, null)
  breakers.replaced(MODEL)
  t.is(breakers.disabled(MODEL), null)
  t.deepEqual(notified.at(-1), { key: 'm@1', disabled: null })
})

test('a replaced worker does not enable a model over the limit', (t) => {
  const { breakers, crash } = makeBreakers()
  for (let i = 0; i < 3; i++) breakers.record({ ...MODEL, cause: 'crash', how: 'SIGFPE' })
  for (let i = 0; i < 3; i++) breakers.replaced(MODEL)
  t.like(breakers.disabled(MODEL), { isLoaded: false })
  breakers.replaced(OTHER)
  crash(1, OTHER)
  t.is(breakers.disabled(OTHER), null)
})

test('a stall counts like a crash', (t) => {
  const { breakers, failures } = makeBreakers()
  breakers.record({ ...MODEL, cause: 'crash', how: 'SIGSEGV' })
  breakers.record({ ...MODEL, cause: 'stall', how: '120 s' })
  breakers.record({ ...MODEL, cause: 'stall', how: '120 s' })
  t.regex(breakers.disabled(MODEL)?.reason ?? '', /in a stall \(120 s\)/)
  t.deepEqual(failures, ['m@1 crash', 'm@1 stall', 'm@1 stall'])
})

test('every version has a separate breaker', (t) => {
  const { breakers, crash } = makeBreakers()
  crash(2)
  crash(2, OTHER)
  t.is(breakers.disabled(MODEL), null)
  t.is(breakers.disabled(OTHER), null)
  crash(1, OTHER)
  t.is(breakers.disabled(MODEL), null)
  t.not(breakers.disabled(OTHER), null)
})

test('failures further apart than the window do not add up', (t) => {
  const { breakers, clock, crash } = makeBreakers()
  crash(1)
  clock.pass(WINDOW_MS / 2)
  crash(1)
  clock.pass(WINDOW_MS / 2)
  crash(1)
  t.is(breakers.disabled(MODEL), null, 'the first has left the window')
  crash(1)
  t.not(breakers.disabled(MODEL), null)
})

test('after the back-off the model accepts requests', (t) => {
  const { breakers, notified, clock, crash } = makeBreakers()
  crash(3)
  clock.pass(FIRST_BACKOFF_MS - 1)
  t.not(breakers.disabled(MODEL), null)
  clock.pass(1)
  t.is(breakers.disabled(MODEL), null)
  t.deepEqual(notified.at(-1), { key: 'm@1', disabled: null })
})

test('one failure during a retry doubles the back-off, up to the maximum', (t) => {
  const { breakers, clock, crash } = makeBreakers()
  crash(3)
  let backoffMs = FIRST_BACKOFF_MS
  for (let i = 0; i < 12; i++) {
    clock.pass(backoffMs)
    t.is(breakers.disabled(MODEL), null)
    crash(1)
    backoffMs = Math.min(backoffMs * 2, LONGEST_BACKOFF_MS)
    t.is((breakers.disabled(MODEL)?.untilMs ?? 0) - clock.nowMs, backoffMs)
  }
  t.is(backoffMs, LONGEST_BACKOFF_MS)
})

test('a model without failures in the trial period is reset', (t) => {
  const { breakers, clock, recovered, crash } = makeBreakers()
  crash(3)
  clock.pass(FIRST_BACKOFF_MS + SHORTEST_TRIAL_MS)
  t.is(clock.waiting, 0)
  t.deepEqual(recovered, ['m@1'])
  crash(2)
  t.is(breakers.disabled(MODEL), null)
  crash(1)
  t.is((breakers.disabled(MODEL)?.untilMs ?? 0) - clock.nowMs, FIRST_BACKOFF_MS)
})

test('the trial period is at least as long as the back-off', (t) => {
  const { breakers, clock, crash } = makeBreakers({ firstBackoffMs: 2 * SHORTEST_TRIAL_MS })
  crash(3)
  clock.pass(2 * SHORTEST_TRIAL_MS)
  clock.pass(2 * SHORTEST_TRIAL_MS - 1)
  crash(1)
  t.is((breakers.disabled(MODEL)?.untilMs ?? 0) - clock.nowMs, 4 * SHORTEST_TRIAL_MS)
})

test('failures of requests in flight when the model was disabled count only in the metric', (t) => {
  const { breakers, notified, failures, crash } = makeBreakers()
  crash(3)
  const before = breakers.disabled(MODEL)
  const changes = notified.length
  crash(2)
  t.is(breakers.disabled(MODEL), before)
  t.is(notified.length, changes)
  t.is(failures.length, 5)
})

test('a reload resets the breaker, disabled or not', (t) => {
  const { breakers, notified, clock, crash } = makeBreakers()
  crash(3)
  breakers.reset(MODEL)
  t.is(breakers.disabled(MODEL), null)
  t.deepEqual(notified.at(-1), { key: 'm@1', disabled: null })
  t.is(clock.waiting, 0)
  crash(2)
  const changes = notified.length
  breakers.reset(MODEL)
  t.is(notified.length, changes, 'a model that was not disabled is not enabled')
  crash(2)
  t.is(breakers.disabled(MODEL), null)
})

test('a retry that cannot start doubles the back-off without counting as a failure', (t) => {
  const { breakers, clock, failures, crash } = makeBreakers()
  crash(3)
  clock.pass(FIRST_BACKOFF_MS)
  breakers.postpone(MODEL, 'no memory')
  t.is((breakers.disabled(MODEL)?.untilMs ?? 0) - clock.nowMs, 2 * FIRST_BACKOFF_MS)
  t.regex(breakers.disabled(MODEL)?.reason ?? '', /could not load it: no memory/)
  t.is(failures.length, 3)
  breakers.postpone(OTHER, 'no memory')
  t.is(breakers.disabled(OTHER), null)
})

test('with a limit of 0 no model is ever disabled', (t) => {
  const { breakers, failures, crash } = makeBreakers({ failureLimit: 0 })
  crash(9)
  t.false(breakers.record({ ...MODEL, cause: 'crash' }))
  t.is(breakers.disabled(MODEL), null)
  t.is(failures.length, 10)
})

test('no timer is left when the breakers are closed', (t) => {
  const { breakers, clock, crash } = makeBreakers()
  crash(3)
  crash(1, OTHER)
  breakers.close()
  t.is(clock.waiting, 0)
})
