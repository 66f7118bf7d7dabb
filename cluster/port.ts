/** The port that workers serve on. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Config } from '../src/config/config.js'
import { listen } from '../src/http/listen.js'

/**
 * Returns the port to serve on. Port 0 is resolved here, once: workers that bind port 0 after all others died
 * would get a different port.
 */
export async function concretePort({ host, port, isHttp }: Config): Promise<number> {
  if (port !== 0 || !isHttp) return port
  const probe = createServer()
  const free = await listen(probe, { host, port }, 'inference')
  probe.close()
  await once(probe, 'close')
  return free
}
