/** What the log says when a model comes whose requests are computed one by one, or together although nothing proves it safe. */
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
      'requests are computed together by "batching": true, although nothing shows that they do not influence each other',
    )
  } else log.info(facts, 'requests are computed one by one')
}
