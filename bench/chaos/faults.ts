/** Random faults from a seed: mostly one worker ends, sometimes all are replaced. */
import { createRandom } from '../models/random.js'

/** Relative frequencies. `freeze` is SIGSTOP, followed by SIGKILL after half a second. */
const WEIGHTS = { SIGKILL: 4, SIGSEGV: 2, SIGABRT: 2, SIGTERM: 2, freeze: 1, SIGHUP: 1 } as const

export type Fault = keyof typeof WEIGHTS
export const FAULTS = Object.keys(WEIGHTS) as Fault[]

export function isFault(name: string): name is Fault {
  return name in WEIGHTS
}

/** Whether requests of the worker may be lost. With other faults, workers drain. */
export function losesRequests(fault: Fault): boolean {
  return fault !== 'SIGTERM' && fault !== 'SIGHUP'
}

export class FaultDraw {
  readonly #random: () => number
  readonly #faults: readonly Fault[]

  constructor(seed: string, faults: readonly Fault[]) {
    this.#random = createRandom(seed)
    this.#faults = faults
  }

  fault(): Fault {
    const total = this.#faults.reduce((sum, fault) => sum + WEIGHTS[fault], 0)
    let at = this.#random() * total
    for (const fault of this.#faults) {
      at -= WEIGHTS[fault]
      if (at < 0) return fault
    }
    return this.#faults[0] as Fault
  }

  pick<Value>(values: readonly Value[]): Value | undefined {
    return values[Math.floor(this.#random() * values.length)]
  }
}
