/** Switches every worker from one generation to the next, including workers that boot meanwhile. */
import { OnecopyError } from '../../src/errors.js'
import type { WorkerHandle } from '../workers/worker-handle.js'
import type { Generation } from './generation.js'
import type { ServiceStates } from './service-states.js'
import type { WorkerBoots } from './worker-boots.js'

export interface SwitchGenerationOptions {
  /** Live workers that are not retiring, ready or booting. */
  readonly workers: () => readonly WorkerHandle[]
  /** Replaces a worker that failed to switch. */
  readonly discard: (worker: WorkerHandle, failure: OnecopyError) => void
  readonly boots: WorkerBoots
  readonly service: ServiceStates
  readonly prepareTimeoutMs: number
}

/** Resolves when every worker sends new requests to `next`; `old` may still have requests in flight. */
export async function switchGeneration(
  { next, old }: { readonly next: Generation | null; readonly old: Generation | null },
  { workers, discard, boots, service, prepareTimeoutMs }: SwitchGenerationOptions,
): Promise<void> {
  const activate = next === null ? [] : [next.facts.key]
  const retire = old === null ? [] : [old.facts.key]
  const needsChange = (worker: WorkerHandle) =>
    retire.some((key) => worker.holds.has(key)) || activate.some((key) => !worker.serves.has(key))
  const change = async (worker: WorkerHandle) => {
    try {
      // A booting worker loads what was served when it started.
      await worker.ready
      if (next !== null && !worker.holds.has(next.facts.key)) await boots.catchUp(worker, next)
      const held = activate.filter((key) => worker.holds.has(key))
      await worker.change({ activate: held, retire }, prepareTimeoutMs)
      if (next !== null && held.length > 0) service.putBackInto(worker, next.facts)
    } catch (thrown) {
      if (thrown instanceof OnecopyError && thrown.code !== 'WORKER_GONE') discard(worker, thrown)
    }
  }
  const changed = new Set<WorkerHandle>()
  for (;;) {
    const affected = workers().filter((worker) => !changed.has(worker) && needsChange(worker))
    if (affected.length === 0) return
    for (const worker of affected) changed.add(worker)
    await Promise.all(affected.map(change))
  }
}
