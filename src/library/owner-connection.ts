/**
 * The attached process's side: requests a model from an owner, and is notified when it changes or the owner
 * ends.
 */
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

  /** Null if no process listens. */
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
   * @throws OnecopyError MODEL_NOT_FOUND and other errors of the owner.
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
      // Waiting for changes does not keep the process alive.
      this.#socket.unref()
    }
  }

  /** Whether the owner now keeps another generation than the one it offered last. */
  get wasChanged(): boolean {
    return this.#wasChanged
  }

  onChanged(listener: () => void): void {
    this.#onChanged = listener
  }

  /** Ends the lease on the raw weights. */
  loaded(): void {
    if (!this.#socket.destroyed) this.#socket.write(encodeLine({ type: 'loaded' }))
  }

  close(): void {
    this.#onChanged = () => {}
    this.#socket.destroy()
  }
}
