/** `serve`: starts the server of `onecopy serve` from a script. */

import cluster from 'node:cluster'
import { isMainThread } from 'node:worker_threads'
import { configOf, type ScriptOptions } from '../src/config/load.js'
import { OnecopyError } from '../src/errors.js'
import { packageVersion } from '../src/installation.js'
import { Primary } from './primary.js'

/**
 * At most one server per process, because its folder in shared memory is named after the process.
 */
let running: Server | null | 'starting' = null

export class Server {
  readonly #primary: Primary

  private constructor(primary: Primary) {
    this.#primary = primary
  }

  /**
   * Starts a server. Resolves when it serves.
   * @throws OnecopyError CONFIG_INVALID, or the reason for a failed start; nothing stays open.
   */
  static async start(options: ScriptOptions): Promise<Server> {
    requireSuitableProcess()
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

  /** The port for inference; 0 if it serves on no port. */
  get port(): number {
    return this.#primary.port
  }

  /** The port for metrics, probes and model control; 0 if it serves on no port. */
  get adminPort(): number {
    return this.#primary.adminPort
  }

  /**
   * Replaces every worker, one at a time, without losing a request.
   * @throws OnecopyError if that fails: the old workers keep serving.
   */
  async restart(): Promise<void> {
    if (this.#primary.isStopping) throw new OnecopyError('SHUTTING_DOWN', 'the server was closed')
    await this.#primary.restartWorkers('restart requested')
  }

  /** Answers accepted requests, ends the workers and removes the segments. Idempotent. */
  async close(): Promise<void> {
    this.#primary.beginToStop()
    await this.#primary.stop()
    if (running === this) running = null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** @throws OnecopyError CONFIG_INVALID if no server can run in this process. */
function requireSuitableProcess(): void {
  const refuse = (message: string) => new OnecopyError('CONFIG_INVALID', `serve: ${message}`)
  if (!isMainThread) throw refuse('expected the main thread: a worker thread cannot fork cluster workers')
  if (!cluster.isPrimary)
    throw refuse('expected a process other than a cluster worker: attach to the model in workers instead')
  if (running !== null)
    throw refuse(
      'a server already runs in this process: close it first, or start the new one in another process',
    )
}
