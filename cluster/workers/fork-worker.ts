/**
 * Starts the worker processes of this server. `node:cluster` has one set of settings in a process: where that process forks
 * others of its own, theirs are put back after each fork.
 */

import cluster, { type ClusterSettings, type Worker } from 'node:cluster'
import { programFile } from '../../src/installation.js'
import { CHILD_DIR, WORKER_ENVIRONMENT, WORKER_FLAGS } from '../../src/runtime/environment.js'

export type ForkWorker = () => Worker

/** With the settings of this process, whatever they are. */
export function forkWorker(): Worker {
  return cluster.fork(WORKER_ENVIRONMENT)
}

/** Settings are kept from one call to the next: what is not to be kept is named. */
function settingsOf(isEmbedded: boolean): ClusterSettings {
  return {
    exec: programFile('cluster/main.js'),
    args: ['worker'],
    // The folder that the server was started in may be removed.
    cwd: CHILD_DIR,
    // A script's flags say how to run that script.
    execArgv: [...(isEmbedded ? [] : process.execArgv), ...WORKER_FLAGS],
    silent: false,
    serialization: 'json',
  }
}

function withDefaults(settings: ClusterSettings): ClusterSettings {
  const [, exec, ...args] = process.argv
  const defaults = { exec, args, execArgv: process.execArgv, cwd: undefined, silent: false }
  return { ...defaults, ...settings } as ClusterSettings
}

/** `isEmbedded`: in a process that may have workers of its own. */
export function workerForker({ isEmbedded }: { readonly isEmbedded: boolean }): ForkWorker {
  const own = settingsOf(isEmbedded)
  if (!isEmbedded) {
    cluster.setupPrimary(own)
    return forkWorker
  }
  return () => {
    const before = withDefaults(cluster.settings)
    cluster.setupPrimary({ ...own, stdio: undefined, uid: undefined, gid: undefined } as ClusterSettings)
    try {
      return forkWorker()
    } finally {
      cluster.setupPrimary(before)
    }
  }
}
