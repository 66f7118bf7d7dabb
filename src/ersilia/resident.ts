/**
 * Finds servers of the same user that keep a model in memory. A note in the server's folder, next to the
 * segment, contains the names of the model, the path of its bundle and its Unix socket.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { MAX_SOCKET_PATH_BYTES } from '../http/unix-socket.js'
import { listServers, type SegmentListing } from '../segment/listing.js'

const NOTE_FILE = 'resident.json'

const NoteSchema = z.object({
  /** Names that `onecopy run` accepts: model name, Identifier, Slug. */
  names: z.array(z.string()),
  /** The model's name in the segment folder; null if run.sh serves it. */
  modelName: z.string().nullable(),
  /** Null for a model without a bundle. */
  bundlePath: z.string().nullable(),
  /** The type of the result values. */
  outputType: z.enum(['float', 'integer', 'string']),
  /** Null if there is no socket. */
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

/** The Unix socket in the server's folder; null if the path is too long for a socket. */
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
 * The running servers of this user with a model, newest first.
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
