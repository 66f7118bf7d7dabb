/**
 * Logs models whose requests are not batched, and models that are batched without proof that this is safe.
 */
import type { Log } from '../../src/log.js'
import type { ModelSource } from '../../src/repository/repository.js'
import type { SegmentHeader } from '../../src/segment/layout.js'

export function logBatching(
  log: Log,
  { name, version, config }: ModelSource,
  { batching }: SegmentHeader,
): void {
  if (batching.batchable || config.batching === false) return
  const { reason, preventedBy } = batching
  const facts = { model: name, version, reason, ...preventedBy }
  if (config.batching === true) {
    log.warn(
      facts,
      'requests are batched because of "batching": true, without proof that they are independent',
    )
  } else log.info(facts, 'requests are not batched')
}
