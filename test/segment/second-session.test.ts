import test from 'ava'
import type { SegmentHeader } from '../../src/segment/layout.js'
import { mayRunOnLoop, secondSessionBytes } from '../../src/segment/second-session.js'

const MIB = 1024 * 1024

function headerWith(
  { privatelyPackedBytes = 0, unshareableBytes = 0 },
  valueDependent: SegmentHeader['valueDependent'] = null,
): Pick<SegmentHeader, 'sharing' | 'valueDependent'> {
  const shared = { state: 'shared', weightsBytes: 1e9, sharedRawBytes: 1e9, sharedPackedBytes: 1e9 } as const
  return { sharing: { ...shared, privatelyPackedBytes, unshareableBytes, notes: [] }, valueDependent }
}

test('a model with up to 16 MiB of private weights may have a second session', (t) => {
  const small = headerWith({ privatelyPackedBytes: 10 * MIB, unshareableBytes: 6 * MIB })
  t.true(mayRunOnLoop(small))
  t.is(secondSessionBytes(small), 16 * MIB)
  const large = headerWith({ privatelyPackedBytes: 10 * MIB, unshareableBytes: 6 * MIB + 1 })
  t.false(mayRunOnLoop(large))
  t.is(secondSessionBytes(large), 0)
})

test('a model whose cost depends on values has no second session', (t) => {
  t.false(mayRunOnLoop(headerWith({}, 'Loop')))
})
