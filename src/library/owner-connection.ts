/** The side of an attached process: asks an owner for a model, and hears when it changes or goes. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { OnecopyError } from '../errors.js'
import {
  attachSocketPath,
  encodeLine,
  type FromOwner,
  FromOwnerSchema,
  lineReader,
  type Offer,
} from './messages.js'

export interface Asked {
  readonly name: string
  readonly version: string | null
}

interface Waiting {
  resolve(offer: Offer): void
  reject(error: Error): void
}

export class OwnerConnection {
  readonly #socket: Socket
  #waiting: Waiting | null = null
  #onChanged: () => void = () => {}
  #wasChanged = false
  /** Settles when the owner has closed it, or `close` was called. */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.#socket = socket
    const read = lineReader(FromOwnerSchema, (message) => this.#take(message))
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => {
      try {
        read(text)
      } catch (thrown) {
        socket.destroy(thrown as Error)
      }
    })
    socket.on('error', (thrown) => this.#waiting?.reject(thrown))
    this.closed = new Promise((resolve) => {
      socket.on('close', () => {
        this.#waiting?.reject(new OnecopyError('SHUTTING_DOWN', 'the process that keeps the model is ending'))
        this.#waiting = null
        resolve()
      })
    })
  }

  /** Null where nobody listens. */
  static async open(serverFolder: string): Promise<OwnerConnection | null> {
    const socket = connect(attachSocketPath(serverFolder))
    try {
      await once(socket, 'connect')
      return new OwnerConnection(socket)
    } catch {
      socket.destroy()
      return null
    }
  }

  #take(message: FromOwner): void {
    if (message.type === 'changed') {
      this.#wasChanged = true
      this.#onChanged()
      return
    }
    const waiting = this.#waiting
    this.#waiting = null
    if (message.type === 'offer') waiting?.resolve(message)
    else waiting?.reject(new OnecopyError(message.code, message.message))
  }

  /**
   * Resolves with a segment that is whole, and stays so until `loaded` is called.
   * @throws OnecopyError MODEL_NOT_FOUND and what else the owner says.
   */
  async attach({ name, version }: Asked, signal: AbortSignal): Promise<Offer> {
    this.#wasChanged = false
    this.#socket.ref()
    const abandon = () => this.#socket.destroy(signal.reason as Error)
    signal.addEventListener('abort', abandon, { once: true })
    try {
      return await new Promise<Offer>((resolve, reject) => {
        this.#waiting = { resolve, reject }
        if (signal.aborted) abandon()
        this.#socket.write(encodeLine({ type: 'attach', name, version }))
      })
    } finally {
      signal.removeEventListener('abort', abandon)
      // What waits for changes keeps no process alive.
      this.#socket.unref()
    }
  }

  /** Whether the owner keeps another generation by now than the one it offered last. */
  get wasChanged(): boolean {
    return this.#wasChanged
  }

  onChanged(tell: () => void): void {
    this.#onChanged = tell
  }

  /** The lease on the raw weights is given back. */
  loaded(): void {
    if (!this.#socket.destroyed) this.#socket.write(encodeLine({ type: 'loaded' }))
  }

  close(): void {
    this.#onChanged = () => {}
    this.#socket.destroy()
  }
}
