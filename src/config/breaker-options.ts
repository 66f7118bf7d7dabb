/** Options of the circuit breaker of each model version. */
import { integer, option } from './option.js'
import { timeLimitMs } from './quantities.js'

export const BREAKER_OPTIONS = {
  breakerLimit: option({
    schema: integer(0, 1000),
    value: 'N',
    group: 'Processes',
    help: 'Crashes or stalls of a model within 5 minutes that open its circuit breaker: requests for it get 503. 0 disables the breaker.',
    default: () => 3,
  }),
  breakerBackoff: option({
    schema: timeLimitMs,
    value: 'TIME',
    group: 'Processes',
    help: 'How long the circuit breaker stays open at first; doubles with each further failure, up to 10 minutes.',
    default: () => '5s',
  }),
} as const

export interface BreakerConfig {
  /** 0 disables the breaker. */
  readonly failureLimit: number
  readonly firstBackoffMs: number
}
