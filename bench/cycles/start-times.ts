/**
 * Duration of a cold start, of a start with the compile cache, and of a start that adopts the segment of a
 * dead server.
 */
import { rm } from 'node:fs/promises'
import { emptyCache, segmentFolder } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import type { GeneratedModel } from '../models/store.js'
import { beginLife, endLife, killLife } from './life.js'

/**
 * Milliseconds to ready in one round. The three starts run one after the other, so that they see the same
 * noise.
 */
export interface StartTimes {
  readonly coldMs: number
  readonly cachedMs: number
  readonly adoptingMs: number
  /** Whether the server reported the adoption. */
  readonly isAdopted: boolean
}

export interface StartTimesOptions {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly workers: number
  readonly rounds: number
  readonly onStart?: (note: string) => void
}

export async function measureStarts(options: StartTimesOptions): Promise<StartTimes[]> {
  const { stage, model, workers, rounds, onStart = () => {} } = options
  const times: StartTimes[] = []
  for (let round = 1; round <= rounds; round++) {
    const segmentDir = segmentFolder(stage)
    const cacheDir = emptyCache(stage)
    const begin = async (note: string) => {
      onStart(`round ${round}: ${note}`)
      return await beginLife({ stage, model, workers, segmentDir, cacheDir })
    }
    const cold = await begin('a cold start')
    await endLife(stage, cold)
    const cached = await begin('a start from the cache')
    await killLife(stage, cached)
    const adopting = await begin('a start after SIGKILL')
    await endLife(stage, adopting)
    times.push({
      coldMs: cold.readyMs,
      cachedMs: cached.readyMs,
      adoptingMs: adopting.readyMs,
      isAdopted: adopting.isAdopted,
    })
    for (const folder of [segmentDir, cacheDir]) await rm(folder, { recursive: true, force: true })
  }
  return times
}
