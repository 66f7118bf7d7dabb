/** The port that workers are told to serve on. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Config } from '../src/config/config.js'
import { listen } from '../src/http/listen.js'

/**
 * The port to serve on. Where any free one is asked for, it is chosen here: workers that ask for port 0
 * after all others died would be given another one.
 */
export async function concretePort({ host, port, isHttp }: Config): Promise<number> {
  if (port !== 0 || !isHttp) return port
  const probe = createServer()
  const free = await listen(probe, { host, port }, 'inference')
  probe.close()
  await once(probe, 'close')
  return free
}
