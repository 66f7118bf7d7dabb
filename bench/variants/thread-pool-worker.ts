/** One thread of the pool. It creates its session at startup. */
import { workerData } from 'piscina'
import { openSession, runSession } from './session.js'
import type { PlainTensors } from './v2-codec.js'

export interface PoolTask {
  readonly feeds: PlainTensors
  readonly outputNames: readonly string[] | undefined
}

const session = await openSession((workerData as { path: string }).path)

export default async ({ feeds, outputNames }: PoolTask): Promise<PlainTensors> =>
  await runSession(session, feeds, outputNames)
