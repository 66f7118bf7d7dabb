/** `serve`: the server of `onecopy serve` out of one's own script. */

import cluster from 'node:cluster'
import { isMainThread } from 'node:worker_threads'
import { configOf, type ScriptOptions } from '../src/config/load.js'
import { OnecopyError } from '../src/errors.js'
import { packageVersion } from '../src/installation.js'
import { Primary } from './primary.js'

/** Its folder in shared memory is named after the process. */
let running: Server | null | 'starting' = null

export class Server {
  readonly #primary: Primary

  private constructor(primary: Primary) {
    this.#primary = primary
  }

  /**
   * Starts a server that serves when this resolves.
   * @throws OnecopyError CONFIG_INVALID and why the server cannot start; nothing stays open then.
   */
  static async start(options: ScriptOptions): Promise<Server> {
    requirePlace()
    running = 'starting'
    let primary: Primary | undefined
    try {
      primary = new Primary(configOf({}, process.env, [], options), packageVersion(), { isEmbedded: true })
      await primary.start()
      running = new Server(primary)
      return running
    } catch (thrown) {
      await primary?.stop()
      running = null
      throw thrown
    }
  }

  /** The port of inference; 0 where none is served on. */
  get port(): number {
    return this.#primary.port
  }

  /** The port of metrics, probes and model control; 0 where none is served on. */
  get adminPort(): number {
    return this.#primary.adminPort
  }

  /** Replaces every worker, one at a time, without losing a request. @throws OnecopyError: workers serve on as they are. */
  async restart(): Promise<void> {
    if (this.#primary.isStopping) throw new OnecopyError('SHUTTING_DOWN', 'the server was closed')
    await this.#primary.restartWorkers('restart asked for')
  }

  /** Answers what was accepted, ends the workers and removes the segments. Idempotent. */
  async close(): Promise<void> {
    this.#primary.beginToStop()
    await this.#primary.stop()
    if (running === this) running = null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** @throws OnecopyError CONFIG_INVALID where no server can run. */
function requirePlace(): void {
  const refuse = (message: string) => new OnecopyError('CONFIG_INVALID', `serve: ${message}`)
  if (!isMainThread)
    throw refuse('expected the main thread: a worker thread cannot start processes of a cluster')
  if (!cluster.isPrimary)
    throw refuse('expected a process that is no worker of a cluster; attach to the model in workers instead')
  if (running !== null)
    throw refuse(
      'a server runs in this process: close it first, or start the other one in a process of its own',
    )
}
