/** Opens a server's socket: the only place that turns a refused address into a clear error. */
import { once } from 'node:events'
import type { AddressInfo, Server } from 'node:net'
import { urlHost } from '../config/host-names.js'
import { OnecopyError } from '../errors.js'

/**
 * Listens on `host` and `port` (0 takes a free one); resolves with the port.
 * @throws OnecopyError ADDRESS_UNAVAILABLE.
 */
export async function listen(
  server: Server,
  address: { host: string; port: number },
  what: string,
): Promise<number> {
  const { host, port } = address
  server.listen({ host, port })
  try {
    await once(server, 'listening')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw new OnecopyError(
      'ADDRESS_UNAVAILABLE',
      `cannot serve ${what} on ${urlHost(host)}:${port} (${code})`,
      {
        cause: thrown,
      },
    )
  }
  return (server.address() as AddressInfo).port
}
