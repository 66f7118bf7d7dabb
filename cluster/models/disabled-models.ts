/** What the circuit breakers decide, done: a disabled model is out of service in every worker until it is tried again. */
import type { BreakerConfig } from '../../src/config/breaker-options.js'
import { messageOf } from '../../src/errors.js'
import type { Log } from '../../src/log.js'
import {
  Breakers,
  type Disabled,
  type FailureKind,
  type ModelVersion,
  timersOfProcess,
} from '../workers/breaker.js'
import type { Catalogue } from './catalogue.js'

/** The code under which a breaker takes a model out of service, and puts it back. */
export const DISABLED = 'MODEL_DISABLED'

export interface DisabledModelsOptions {
  readonly config: BreakerConfig
  /** Undefined before anything is served. */
  readonly catalogue: () => Catalogue | undefined
  readonly onFailure: (model: ModelVersion, cause: FailureKind) => void
  readonly log: Log
}

export function createBreakers({ config, catalogue, onFailure, log }: DisabledModelsOptions): Breakers {
  const { nowMs, after } = timersOfProcess()
  const takeOut = ({ model: name, version }: ModelVersion, { reason, untilMs, isLoaded }: Disabled) => {
    const waitMs = untilMs - nowMs()
    catalogue()?.takeOut(
      { name, version },
      {
        ...{ code: DISABLED, reason },
        ...{ retryAfterSeconds: Math.ceil(waitMs / 1000), untilMs: Date.now() + waitMs },
        // While a worker is replaced the model is under no suspicion yet: one request may have been the cause, or a signal.
        isQueueKept: isLoaded,
      },
      { isLoaded },
    )
  }
  const bringBack = async (model: ModelVersion) => {
    try {
      await catalogue()?.bringBack({ name: model.model, version: model.version }, DISABLED)
    } catch (thrown) {
      breakers.postpone(model, messageOf(thrown))
    }
  }
  const breakers: Breakers = new Breakers({
    ...{ ...config, nowMs, after, onFailure },
    onDisabled: (model, disabled) => {
      if (disabled === null) void bringBack(model)
      else takeOut(model, disabled)
    },
    onRecovered: (model) => log.info(model, 'the model has recovered'),
  })
  return breakers
}
