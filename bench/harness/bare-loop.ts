/** The bare runtime as one side of a comparison with servers. */
import { once } from 'node:events'
import { join } from 'node:path'
import type { LoopReply, LoopRequest } from '../variants/loop-messages.js'
import { COMPILED_ROOT } from './paths.js'
import type { Arm } from './rounds.js'
import type { Stage } from './stage.js'
import { quantile } from './statistics.js'

export interface BareLoopOptions {
  readonly stage: Stage
  /** `id` is the name on the command line, if it differs from `name`. */
  readonly model: { readonly id?: string; readonly name: string; readonly path: string }
  readonly processes: number
  /** Number of different inputs, used in turn. Servers get the same number. */
  readonly inputs: number
  /** Tokens per text, if the model is an encoder. */
  readonly tokens?: number
}

export async function startBareLoop({
  stage,
  model,
  processes,
  inputs,
  tokens,
}: BareLoopOptions): Promise<Arm> {
  const name = 'bare session.run'
  const script = join(COMPILED_ROOT, 'bench', 'variants', 'bare-runtime.js')
  const settings = {
    '--model': model.id ?? model.name,
    '--path': model.path,
    '--processes': String(processes),
    '--inputs': String(inputs),
    ...(tokens === undefined ? {} : { '--tokens': String(tokens) }),
  }
  const child = await stage.start({
    name,
    args: [script, ...Object.entries(settings).flat()],
    hasChannel: true,
  })
  return {
    name,
    measure: async (seconds) => {
      const request: LoopRequest = { durationMs: seconds * 1000 }
      const ended = new AbortController()
      child.process.once('exit', () => ended.abort(new Error(`${name} exited during the measurement`)))
      child.process.send(request)
      const [reply] = (await once(child.process, 'message', { signal: ended.signal })) as [LoopReply]
      return {
        requestsPerSecond: (reply.latenciesMs.length * 1000) / reply.elapsedMs,
        p50Ms: quantile(reply.latenciesMs, 0.5),
        p99Ms: quantile(reply.latenciesMs, 0.99),
        failures: 0,
      }
    },
  }
}
