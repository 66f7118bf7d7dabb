/**
 * Two Koa clusters of the same size: one attaches to the model, the other loads it in every worker.
 */
import { startOnecopy, startVariant } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import type { Subject } from '../models/subject.js'

/** The server that owns the model has one worker. */
export async function startClusters(stage: Stage, model: Subject, workers: number) {
  const owner = await startOnecopy({ stage, model, workers: 1 })
  const env = { BENCH_SEGMENT_DIR: owner.segmentDir ?? '' }
  return {
    owner,
    attached: await startVariant('attached-koa', { stage, model, workers, env }),
    plain: await startVariant('plain-koa', { stage, model, workers }),
  }
}
