/** The Unix socket of a server, for processes on the same machine. */
import type { Config } from '../src/config/config.js'
import { ownSocketPath } from '../src/ersilia/resident.js'
import { SocketFile } from '../src/http/unix-socket.js'

/** The configured path, else one next to the segments; null if that path is too long for a socket. */
export async function chooseSocket(
  { socketPath }: Pick<Config, 'socketPath'>,
  serverFolder: string,
): Promise<SocketFile | null> {
  const path = socketPath !== '' ? socketPath : ownSocketPath(serverFolder)
  return path === null ? null : await SocketFile.claim(path)
}
