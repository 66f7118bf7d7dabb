/**
 * Servers that keep a model in memory, as other processes of the same user find them: a note in the server's folder
 * says which model it is, where its bundle stands and on which Unix socket it answers. The segment stands beside it.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { MAX_SOCKET_PATH_BYTES } from '../http/unix-socket.js'
import { listServers, type SegmentListing } from '../segment/listing.js'

const NOTE_FILE = 'resident.json'

const NoteSchema = z.object({
  /** How `onecopy run` may call it: model name, Identifier, Slug. */
  names: z.array(z.string()),
  /** The model's name in the segment's folder; null where run.sh answers. */
  modelName: z.string().nullable(),
  /** Null for a model that is no bundle. */
  bundlePath: z.string().nullable(),
  /** How its values are written. */
  outputType: z.enum(['float', 'integer', 'string']),
  /** Null where none is listened on. */
  socketPath: z.string().nullable(),
})

export type ResidentNote = z.infer<typeof NoteSchema>

export interface Resident extends ResidentNote {
  readonly pid: number
  /** The server's folder in shared memory. */
  readonly folder: string
  /** The finished segment of the newest generation; null where there is none. */
  readonly segment: SegmentListing | null
}

/** Where a server listens for its neighbours; null where the path is too long for a socket. */
export function ownSocketPath(serverFolder: string): string | null {
  const path = join(serverFolder, 'http.sock')
  return Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES ? path : null
}

export async function writeResidentNote(serverFolder: string, note: ResidentNote): Promise<void> {
  await writeFile(join(serverFolder, NOTE_FILE), JSON.stringify(note), { mode: 0o600 })
}

async function readNote(serverFolder: string): Promise<ResidentNote | null> {
  try {
    return NoteSchema.parse(JSON.parse(await readFile(join(serverFolder, NOTE_FILE), 'utf8')))
  } catch {
    return null
  }
}

/**
 * The living servers of this user that hold a model, the youngest first.
 * @throws OnecopyError SEGMENT_FOLDER_INVALID.
 */
export async function findResidents(segmentDir: string): Promise<Resident[]> {
  const residents: Resident[] = []
  for (const server of (await listServers(segmentDir)).reverse()) {
    if (server.state !== 'live' || server.owner === null) continue
    const note = await readNote(server.path)
    if (note === null) continue
    const segment = server.segments.findLast(
      ({ model, isFinished, problem }) => model === note.modelName && isFinished && problem === null,
    )
    residents.push({ ...note, pid: server.owner.pid, folder: server.path, segment: segment ?? null })
  }
  return residents
}
