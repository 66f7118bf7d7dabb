/** Options of the circuit breaker that every model version has. */
import { integer, option } from './option.js'
import { timeLimitMs } from './quantities.js'

export const BREAKER_OPTIONS = {
  breakerLimit: option({
    schema: integer(0, 1000),
    value: 'N',
    group: 'Processes',
    help: 'A model that has crashed or stalled workers so many times within 5 minutes is disabled for a while: its requests are answered with 503; 0 never.',
    default: () => 3,
  }),
  breakerBackoff: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Processes',
    help: 'How long such a model is disabled first; twice as long each time it fails again, up to 10 minutes.',
    default: () => '5s',
  }),
} as const

export interface BreakerConfig {
  /** 0 is never. */
  readonly failureLimit: number
  readonly firstBackoffMs: number
}
