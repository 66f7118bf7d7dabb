/** Applies the decisions of the circuit breakers: a disabled model is out of service in every worker. */
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

/** The reason code of a disabled model. Only the same code puts it back. */
export const DISABLED = 'MODEL_DISABLED'

export interface DisabledModelsOptions {
  readonly config: BreakerConfig
  /** Undefined until models are served. */
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
        // During a suspension the model is not yet blamed: a single request or a signal may be the cause.
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
