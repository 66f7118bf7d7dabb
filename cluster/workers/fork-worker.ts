/**
 * Starts the worker processes of this server. `node:cluster` has one set of settings per process.
 * An application may fork workers too, so its settings are restored after each fork.
 */

import cluster, { type ClusterSettings, type Worker } from 'node:cluster'
import { programFile } from '../../src/installation.js'
import { CHILD_DIR, WORKER_ENVIRONMENT, WORKER_FLAGS } from '../../src/runtime/environment.js'

export type ForkWorker = () => Worker

/** Forks a worker with the current settings of `node:cluster`. */
export function forkWorker(): Worker {
  return cluster.fork(WORKER_ENVIRONMENT)
}

/**
 * `cluster.setupPrimary` keeps earlier settings, so this sets every one that must not be inherited.
 */
function settingsOf(isEmbedded: boolean): ClusterSettings {
  return {
    exec: programFile('cluster/main.js'),
    args: ['worker'],
    // The folder in which the server was started may be removed.
    cwd: CHILD_DIR,
    // Node flags of an application's script apply to that script only.
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

/** `isEmbedded`: the process may have other workers. */
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
