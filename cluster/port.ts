/** The ports on which workers serve. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Config } from '../src/config/config.js'
import { listen } from '../src/http/listen.js'

/**
 * The ports to serve on. Replaces port 0 with a free port: if all workers died, their replacements
 * would otherwise get a different one.
 */
export async function concretePorts(
  config: Pick<Config, 'host' | 'port' | 'grpcPort' | 'isHttp'>,
): Promise<{ readonly port: number; readonly grpcPort: number | null }> {
  const { host, port, grpcPort, isHttp } = config
  if (!isHttp) return { port, grpcPort: null }
  return {
    port: port === 0 ? await freePort(host) : port,
    grpcPort: grpcPort === 0 ? await freePort(host) : grpcPort,
  }
}

async function freePort(host: string): Promise<number> {
  const probe = createServer()
  const free = await listen(probe, { host, port: 0 }, 'inference')
  probe.close()
  await once(probe, 'close')
  return free
}
