/** Where neighbours on this machine are answered. */
import type { Config } from '../src/config/config.js'
import { ownSocketPath } from '../src/ersilia/resident.js'
import { SocketFile } from '../src/http/unix-socket.js'
import type { InitialModels } from './models/bundles.js'

/** As asked for, else beside the segment of what has a name; null where there is no need. */
export async function chooseSocket(
  { socketPath }: Pick<Config, 'socketPath'>,
  serverFolder: string,
  { names }: InitialModels,
): Promise<SocketFile | null> {
  const path = socketPath !== '' ? socketPath : names.length === 0 ? null : ownSocketPath(serverFolder)
  return path === null ? null : await SocketFile.claim(path)
}
