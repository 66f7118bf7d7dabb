/**
 * The file of a Unix socket: claimed before a server listens, published once it listens, and removed only by
 * its owner.
 *
 * A server does not bind the path itself: on close, libuv unlinks the name that it bound, even if another
 * server owns it by then (uv__pipe_close in https://github.com/libuv/libuv/blob/v1.x/src/unix/pipe.c). It
 * binds another name in the same folder; `publish` links the socket to the path, which fails if another
 * server was faster.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { lstatSync, rmSync, type Stats } from 'node:fs'
import { link, lstat, rename, rm, stat } from 'node:fs/promises'
import { connect, type Server } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'

/** sun_path of unix(7) without its terminating zero. A longer path would be truncated silently. */
export const MAX_SOCKET_PATH_BYTES = 107
/** Shorter names than this are not hashed. */
const HASHED_NAME_CHARACTERS = 7

function unavailable(message: string, cause?: unknown): OnecopyError {
  return new OnecopyError('ADDRESS_UNAVAILABLE', message, { cause })
}

function kindOf(found: Stats): string {
  if (found.isSymbolicLink()) return 'a symbolic link'
  if (found.isDirectory()) return 'a folder'
  if (found.isFIFO()) return 'a named pipe'
  if (found.isFile()) return 'a plain file'
  return found.isSocket() ? 'a socket' : 'a device'
}

async function find(path: string): Promise<Stats | null> {
  try {
    return await lstat(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw unavailable(`expected to look at the socket path ${path}: ${messageOf(thrown)}`, thrown)
  }
}

/** Whether a living server accepts connections there. */
async function isAnswered(path: string): Promise<boolean> {
  const probe = connect(path)
  try {
    await once(probe, 'connect')
    return true
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED' || code === 'ENOENT') return false
    throw unavailable(`expected to connect to the socket ${path}: ${messageOf(thrown)}`, thrown)
  } finally {
    probe.destroy()
  }
}

/** Removes the socket of a dead server. Any other file at the path stays. */
async function removeStale(path: string): Promise<void> {
  const found = await find(path)
  if (found === null) return
  if (!found.isSocket())
    throw unavailable(`expected a socket or nothing at ${path}, found ${kindOf(found)}: it is left unchanged`)
  if (await isAnswered(path)) throw unavailable(`another server is listening on the socket ${path}`)
  const now = await find(path)
  if (now !== null && (now.ino !== found.ino || now.dev !== found.dev))
    throw unavailable(`another server has just taken the socket ${path}`)
  await rm(path, { force: true })
}

function bindPathOf(path: string): string {
  const name = basename(path)
  const hash = createHash('sha256').update(name).digest('hex')
  const short = name.length < HASHED_NAME_CHARACTERS ? `${name}~` : hash.slice(0, HASHED_NAME_CHARACTERS - 1)
  return join(dirname(path), `.${short}`)
}

export class SocketFile {
  readonly path: string
  /** Where to listen. */
  readonly bindPath: string
  #published: Pick<Stats, 'dev' | 'ino'> | null = null
  /** Publications are made one at a time. */
  #last: Promise<void> = Promise.resolve()

  private constructor(path: string) {
    this.path = path
    this.bindPath = bindPathOf(path)
  }

  /**
   * Checks that a server can listen at `path`; removes the socket of a dead one.
   * @throws OnecopyError ADDRESS_UNAVAILABLE: too long, no folder, not a socket, or a living server's.
   */
  static async claim(path: string): Promise<SocketFile> {
    const file = new SocketFile(path)
    const bytes = Math.max(Buffer.byteLength(path), Buffer.byteLength(file.bindPath))
    if (bytes > MAX_SOCKET_PATH_BYTES)
      throw unavailable(
        `expected a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes, got ${bytes}: ${path}`,
      )
    const folder = await stat(dirname(path)).catch(() => null)
    if (folder?.isDirectory() !== true)
      throw unavailable(`expected the folder ${dirname(path)} for the socket ${path}, found none`)
    await removeStale(path)
    await removeStale(file.bindPath)
    return file
  }

  /**
   * Publishes the socket at its path, once the server listens. Idempotent.
   * @throws OnecopyError ADDRESS_UNAVAILABLE if another server was faster.
   */
  publish(): Promise<void> {
    const publication = this.#last.then(() => this.#publish())
    this.#last = publication.catch(() => {})
    return publication
  }

  async #publish(): Promise<void> {
    const bound = await find(this.bindPath)
    if (bound === null) return
    try {
      await link(this.bindPath, this.path)
      await rm(this.bindPath, { force: true })
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST')
        throw unavailable(`cannot serve on the socket ${this.path}: ${messageOf(thrown)}`, thrown)
      // If all workers died, their socket is still there.
      if (!(await this.#isOwn())) throw unavailable(`another server has taken the socket ${this.path}`)
      await rename(this.bindPath, this.path)
    }
    this.#published = bound
  }

  /** The synchronous form of `remove`, for a process that exits. */
  removeNow(): void {
    const found = lstatSync(this.path, { throwIfNoEntry: false })
    if (found !== undefined && found.dev === this.#published?.dev && found.ino === this.#published.ino)
      rmSync(this.path, { force: true })
  }

  async #isOwn(): Promise<boolean> {
    const found = await find(this.path)
    return found !== null && found.dev === this.#published?.dev && found.ino === this.#published.ino
  }

  /** Removes the socket of this server, but not that of a successor. */
  async remove(): Promise<void> {
    await this.#last
    if (await this.#isOwn()) await rm(this.path, { force: true })
    if (this.#published === null) return
    await rm(this.bindPath, { force: true })
  }
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
    throw unavailable(`cannot serve inference on the socket ${path} (${code})`, thrown)
  }
}
