/**
 * The owner's side: offers segments to processes of the same user, and keeps the raw weights while they load.
 * A lease ends with a message, with the connection, which the kernel closes when a process dies, and after
 * LEASE_LIMIT_MS if a process hangs.
 */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { messageOf, OnecopyError } from '../errors.js'
import { MAX_SOCKET_PATH_BYTES } from '../http/unix-socket.js'
import type { Log } from '../log.js'
import type { ServedModelConfig } from '../repository/config.js'
import type { SegmentReference } from '../segment/attach.js'
import {
  attachSocketPath,
  encodeLine,
  type FromOwner,
  lineReader,
  type ToOwner,
  ToOwnerSchema,
} from './messages.js'

/** A load takes seconds. A process that is stopped during a load still shares the file's lock. */
const LEASE_LIMIT_MS = 120_000

/** A model version as it is now. */
export interface Attachable {
  /** Names this generation. */
  readonly generation: string
  readonly name: string
  readonly version: string
  readonly config: ServedModelConfig
  /** Threads inside one inference. */
  readonly threads: number
  /** Valid while a lease is held. */
  readonly reference: () => SegmentReference
  /** Resolves when the segment is complete, and keeps it complete until the returned function is called. */
  lease(): Promise<() => void>
}

export interface OwnerServerOptions {
  readonly serverFolder: string
  /** @throws OnecopyError MODEL_NOT_FOUND, or why the version is out of service. */
  readonly find: (name: string, version: string | null) => Attachable
  readonly log: Log
}

type Asked = Extract<ToOwner, { type: 'attach' }>

/** One attached process. */
class Visitor {
  readonly #socket: Socket
  readonly #options: OwnerServerOptions
  #asked: Asked | null = null
  #generation: string | null = null
  #release: () => void = () => {}
  #limit: NodeJS.Timeout | undefined

  constructor(socket: Socket, options: OwnerServerOptions) {
    this.#socket = socket
    this.#options = options
    const read = lineReader(ToOwnerSchema, (message) => this.#take(message))
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      try {
        read(text)
      } catch (thrown) {
        options.log.warn({ reason: messageOf(thrown) }, 'a process sent an invalid message to attach')
        socket.destroy()
      }
    })
    socket.on('error', () => {})
    socket.on('close', () => this.#endLease())
  }

  #take(message: ToOwner): void {
    if (message.type === 'attach') void this.#offer(message)
    else this.#endLease()
  }

  #endLease(): void {
    clearTimeout(this.#limit)
    const release = this.#release
    this.#release = () => {}
    release()
  }

  #send(message: FromOwner): void {
    if (!this.#socket.destroyed) this.#socket.write(encodeLine(message))
  }

  async #offer(asked: Asked): Promise<void> {
    this.#endLease()
    this.#asked = asked
    try {
      const found = this.#options.find(asked.name, asked.version)
      const release = await found.lease()
      if (this.#socket.destroyed) return release()
      this.#release = release
      this.#limit = setTimeout(() => this.#endLease(), LEASE_LIMIT_MS).unref()
      const { generation, name, version, config, threads } = found
      this.#generation = generation
      this.#send({ type: 'offer', generation, name, version, segment: found.reference(), config, threads })
      // It may have been replaced while its weights were restored.
      this.check()
    } catch (thrown) {
      const code = thrown instanceof OnecopyError ? thrown.code : 'INTERNAL'
      this.#send({ type: 'refused', code, message: messageOf(thrown) })
    }
  }

  /** Notifies the process if another generation would be offered now. */
  check(): void {
    if (this.#asked === null || this.#generation === null) return
    let now: string | null = null
    try {
      now = this.#options.find(this.#asked.name, this.#asked.version).generation
    } catch {
      // No generation answers, which is a change too.
    }
    if (now === this.#generation) return
    this.#generation = null
    this.#send({ type: 'changed' })
  }

  close(): void {
    this.#socket.destroy()
  }
}

export class OwnerServer {
  readonly #server: Server
  readonly #visitors = new Set<Visitor>()

  private constructor(options: OwnerServerOptions) {
    this.#server = createServer((socket) => {
      const visitor = new Visitor(socket, options)
      this.#visitors.add(visitor)
      socket.on('close', () => this.#visitors.delete(visitor))
    })
  }

  /** Listens in the server's folder; null, with a warning, where its path is too long for a socket. */
  static async start(options: OwnerServerOptions): Promise<OwnerServer | null> {
    const path = attachSocketPath(options.serverFolder)
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH_BYTES) {
      options.log.warn(
        { path },
        'no process can attach: the path of the segment folder is too long for a socket',
      )
      return null
    }
    const owner = new OwnerServer(options)
    owner.#server.listen({ path })
    await once(owner.#server, 'listening')
    return owner
  }

  /** Call this after the models have changed. */
  changed(): void {
    for (const visitor of this.#visitors) visitor.check()
  }

  /** Attached processes keep what they have loaded. Idempotent. */
  async close(): Promise<void> {
    for (const visitor of this.#visitors) visitor.close()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }
}
