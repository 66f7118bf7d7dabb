/**
 * Plans of recent requests. Most clients send the same request again with other tensor data, and
 * the same JSON around the data has the same plan: parsing and checking it would be half of the
 * work of decoding a small request.
 */
import type { JsonLimits } from './json.js'
import type { InputPlan, ModelSpec, OutputRequest } from './plan.js'
import type { RequestParameters } from './schema.js'

/** What a request asks for, from its JSON without the tensor data, checked against the model. */
export interface RequestPlan {
  readonly id?: string
  readonly parameters: RequestParameters
  readonly inputs: readonly InputPlan[]
  readonly outputs: readonly OutputRequest[]
  /** Of all inputs together, after the JSON. */
  readonly binaryBytes: number
}

/** What a plan depends on besides the text. */
export interface PlanConditions {
  readonly limits: JsonLimits
  readonly isSharedMemoryEnabled: boolean
}

/** Clients of a model differ in their batch sizes. */
const MAX_PLANS = 16
/** Longer texts, of many tensors, would take much memory. */
const MAX_TEXT_LENGTH = 1024

/** Plans by text; when it is full, the oldest one is dropped. */
export class PlanCache {
  readonly #plans = new Map<string, RequestPlan & PlanConditions>()

  /** Whether a text of this length can be in the cache. */
  static takes(length: number): boolean {
    return length <= MAX_TEXT_LENGTH
  }

  find(text: string, { limits, isSharedMemoryEnabled }: PlanConditions): RequestPlan | null {
    const plan = this.#plans.get(text)
    if (plan === undefined) return null
    return plan.limits === limits && plan.isSharedMemoryEnabled === isSharedMemoryEnabled ? plan : null
  }

  /** Plans with an id are not kept: the next request has another one. */
  keep(text: string, plan: RequestPlan, conditions: PlanConditions): void {
    if (plan.id !== undefined || !PlanCache.takes(text.length)) return
    const [oldest] = this.#plans.size >= MAX_PLANS ? this.#plans.keys() : []
    if (oldest !== undefined) this.#plans.delete(oldest)
    this.#plans.set(text, { ...plan, ...conditions })
  }
}

interface ModelPlans {
  /** By the bytes of the JSON in front of binary tensors, one character each. */
  readonly byHeader: PlanCache
  /** By the JSON with tensor data in it replaced by indices. */
  readonly bySkeleton: PlanCache
}

const plansByModel = new WeakMap<ModelSpec, ModelPlans>()

export function plansOf(model: ModelSpec): ModelPlans {
  let plans = plansByModel.get(model)
  if (plans === undefined) {
    plans = { byHeader: new PlanCache(), bySkeleton: new PlanCache() }
    plansByModel.set(model, plans)
  }
  return plans
}
