/** Counts and logs the end of a worker. */
import type { Log } from '../../src/log.js'
import { END_MESSAGES } from './worker-end.js'
import type { WorkerExit, WorkerHandle } from './worker-handle.js'

/** The term of Kubernetes. SIGKILL in the metrics means a kill by another process. */
const OOM_KILLED = 'OOM_KILLED'

export function reportEnd(
  handle: WorkerHandle,
  { how, end, running, failure, livedMs }: WorkerExit,
  { log, onEnded }: { readonly log: Log; readonly onEnded: (reason: string) => void },
): void {
  const isFault = end === 'runtime fault' || end === 'fault'
  const facts = { worker: handle.id, workerPid: handle.pid, how, livedMs: Math.round(livedMs) }
  onEnded(end === 'out of memory' ? OOM_KILLED : isFault ? how : (handle.retiredFor ?? failure?.code ?? how))
  if (handle.retiredFor !== null && !isFault) {
    log.info({ ...facts, reason: handle.retiredFor }, 'worker replaced')
    return
  }
  log.error(
    {
      ...facts,
      ...(running === null ? {} : { model: running.model, version: running.version }),
      ...(failure === null ? {} : { code: failure.code, reason: failure.message }),
    },
    END_MESSAGES[end],
  )
}
