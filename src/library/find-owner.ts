/** Which process of this user keeps a model. */
import { OnecopyError } from '../errors.js'
import { listServers } from '../segment/listing.js'
import type { Offer } from './messages.js'
import { type Asked, OwnerConnection } from './owner-connection.js'

export interface Found {
  readonly connection: OwnerConnection
  readonly offer: Offer
}

export interface Search extends Asked {
  readonly segmentDir: string
  /** Only this server's folder. */
  readonly serverFolder: string | null
}

/** The living servers of this user, the youngest first. */
async function livingServers({ segmentDir, serverFolder }: Search): Promise<string[]> {
  if (serverFolder !== null) return [serverFolder]
  const servers = await listServers(segmentDir)
  return servers.flatMap(({ state, path }) => (state === 'live' ? [path] : [])).reverse()
}

function notResident({ name, version, segmentDir }: Search, cause: unknown): OnecopyError {
  const what = `model ${JSON.stringify(name)}${version === null ? '' : ` version ${version}`}`
  return new OnecopyError(
    'MODEL_NOT_RESIDENT',
    `no process of this user keeps ${what} in ${segmentDir}: start onecopy load MODEL.onnx --name ${name} --segment-dir ${segmentDir}, or onecopy serve`,
    { cause },
  )
}

/**
 * Asks one after the other; the first that has the model offers it.
 * @throws OnecopyError MODEL_NOT_RESIDENT, and the error of an owner that has the model but cannot offer it.
 */
export async function findOwner(search: Search, signal: AbortSignal): Promise<Found> {
  let refusal: unknown
  for (const folder of await livingServers(search)) {
    signal.throwIfAborted()
    const connection = await OwnerConnection.open(folder)
    if (connection === null) continue
    try {
      return { connection, offer: await connection.attach(search, signal) }
    } catch (thrown) {
      connection.close()
      if (signal.aborted) throw thrown
      const isElsewhere = thrown instanceof OnecopyError && thrown.code === 'MODEL_NOT_FOUND'
      if (!isElsewhere) refusal ??= thrown
    }
  }
  // An owner that is ending did not answer for the model.
  if (refusal instanceof OnecopyError && refusal.code !== 'SHUTTING_DOWN') throw refusal
  throw notResident(search, refusal)
}
