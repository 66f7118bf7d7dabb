/** Opens a server's socket: the one place that turns a refused address into a clear error. */
import { once } from 'node:events'
import { lstat, rm } from 'node:fs/promises'
import { type AddressInfo, connect, type Server } from 'node:net'
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
    throw new OnecopyError('ADDRESS_UNAVAILABLE', `cannot serve ${what} on ${host}:${port} (${code})`, {
      cause: thrown,
    })
  }
  return (server.address() as AddressInfo).port
}

/**
 * Listens on a Unix socket. Under the usual umask only its user may connect.
 * @throws OnecopyError ADDRESS_UNAVAILABLE.
 */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  server.listen({ path })
  try {
    await once(server, 'listening')
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    throw new OnecopyError('ADDRESS_UNAVAILABLE', `cannot serve inference on the socket ${path} (${code})`, {
      cause: thrown,
    })
  }
}

/**
 * Removes the socket that a killed server left under a path; one that somebody listens on, and any other file, stay.
 * @throws OnecopyError ADDRESS_UNAVAILABLE when a living server has it.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  const found = await lstat(path).catch(() => null)
  if (found?.isSocket() !== true) return
  const probe = connect(path)
  try {
    await once(probe, 'connect')
  } catch {
    await rm(path, { force: true })
    return
  } finally {
    probe.destroy()
  }
  throw new OnecopyError('ADDRESS_UNAVAILABLE', `a living server answers on the socket ${path}`)
}
