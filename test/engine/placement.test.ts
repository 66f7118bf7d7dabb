import test from 'ava'
import { ExecutionCost } from '../../src/engine/execution-cost.js'
import { LoopShare, type PlacementFacts, placementOf } from '../../src/engine/placement.js'

const MS = 1e6
const POLICY = { budgetNs: 2 * MS }
const QUIET: PlacementFacts = { estimateNs: MS, isAlone: false, loopShare: 0 }

test('short executions run on the event loop, longer ones and those of unknown cost in the thread', (t) => {
  t.is(placementOf(POLICY, QUIET), 'event-loop')
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: 2 * MS }), 'event-loop')
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: 2.1 * MS }), 'thread')
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: null }), 'thread')
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: null, isAlone: true }), 'thread')
})

test('a lone request may run longer on the event loop, because it blocks no other request', (t) => {
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: 5 * MS, isAlone: true }), 'event-loop')
  t.is(placementOf(POLICY, { ...QUIET, estimateNs: 7 * MS, isAlone: true }), 'thread')
})

test('an event loop that spent most of its time in the runtime uses the thread for further executions', (t) => {
  t.is(placementOf(POLICY, { ...QUIET, loopShare: 0.9 }), 'thread')
})

test('with a budget of 0 nothing runs on the event loop', (t) => {
  t.is(placementOf({ budgetNs: 0 }, { ...QUIET, estimateNs: 1 }), 'thread')
  t.is(placementOf({ budgetNs: 0 }, { ...QUIET, estimateNs: 1, isAlone: true }), 'thread')
})

test('the share of a loop that computes continuously approaches 1, and decays afterwards', (t) => {
  const share = new LoopShare()
  for (let i = 1; i <= 1000; i++) share.add(i * MS, MS)
  t.true(share.of(1000 * MS) > 0.95)
  t.true(share.of(1000 * MS) < 1.05)
  t.true(share.of(1500 * MS) < 0.01)
})

test('a cost is known after three runs, and a slow first run is soon forgotten', (t) => {
  const cost = new ExecutionCost()
  cost.record(1000, 20 * MS)
  cost.record(1000, MS)
  t.is(cost.estimateNs(1000), null)
  cost.record(1000, MS)
  t.is(cost.estimateNs(1000), MS)
})

test('the cost of a size is an upper bound for smaller sizes, and not for larger ones', (t) => {
  const cost = new ExecutionCost()
  for (let i = 0; i < 3; i++) cost.record(4096, MS)
  t.is(cost.estimateNs(100), MS)
  t.is(cost.estimateNs(4096), MS)
  t.is(cost.estimateNs(5000), null)
})

test('the cost of a model that becomes slower is updated', (t) => {
  const cost = new ExecutionCost()
  for (let i = 0; i < 10; i++) cost.record(1000, MS)
  for (let i = 0; i < 10; i++) cost.record(1000, 10 * MS)
  t.true((cost.estimateNs(1000) ?? 0) > 8 * MS)
})
