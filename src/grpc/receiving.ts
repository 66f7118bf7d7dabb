/**
 * Limits what clients can make a worker hold before a call begins: the bytes of messages that have
 * not arrived completely, over all streams, and the time that a message takes.
 *
 * A unary call begins when its client has ended its side, so its message counts until then. A
 * message of a stream counts until it is complete. Complete messages count in the queue of their
 * model.
 */
import type { ServerHttp2Stream } from 'node:http2'
import {
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  ServerListenerBuilder,
} from '@grpc/grpc-js'
import { OnecopyError } from '../errors.js'
import type { Log } from '../log.js'
import { formatMs } from '../units.js'
import { MessageFrames } from './message-frames.js'
import { statusObjectOf } from './status.js'

export interface ReceivingLimits {
  /** Of one message. */
  readonly maxMessageBytes: number
  /** Of incomplete messages over all streams. */
  readonly maxReceivingBytes: number
  /** For a message: from the beginning of a unary call, or from the first byte within a stream. */
  readonly timeoutMs: number
  readonly log: Pick<Log, 'debug'>
}

/** Smaller messages count as many bytes as they have on the wire. */
const WORTH_NOTING_BYTES = 64 * 1024
const sizes = new WeakMap<object, number>()

/** Notes how many bytes a message has after decompression. */
export function noteSize(message: object, bytes: number): void {
  if (bytes >= WORTH_NOTING_BYTES) sizes.set(message, bytes)
}

/** What all streams of a worker hold. */
interface Total {
  bytes: number
}

/**
 * The stream of a call. grpc-js has no public interface to the bytes of a message that is not
 * complete, so this reads a private member; the dependency's version is exact.
 */
function streamOf(call: ServerInterceptingCallInterface): ServerHttp2Stream {
  const { stream } = call as unknown as { readonly stream?: ServerHttp2Stream }
  if (typeof stream?.prependListener !== 'function') throw new Error('expected the HTTP/2 stream of a call')
  return stream
}

class Receiving {
  readonly #call: ServerInterceptingCallInterface
  readonly #stream: ServerHttp2Stream
  readonly #limits: ReceivingLimits
  readonly #total: Total
  readonly #isUnary: boolean
  readonly #frames = new MessageFrames()
  #heldBytes = 0
  #isRefused = false
  /**
   * Whether more bytes are wanted. The time in which the server reads nothing is not the client's.
   */
  #isReading = false
  #timer: NodeJS.Timeout | undefined

  constructor(
    call: ServerInterceptingCallInterface,
    { limits, total, isUnary }: { limits: ReceivingLimits; total: Total; isUnary: boolean },
  ) {
    this.#call = call
    this.#limits = limits
    this.#total = total
    this.#isUnary = isUnary
    this.#stream = streamOf(call)
    // Before grpc-js has the bytes: it drops those of a call that is refused.
    this.#stream.prependListener('data', (chunk: Buffer) => this.#take(chunk))
    this.#stream.once('close', () => this.#release())
    if (isUnary) this.#startTimer()
  }

  #startTimer(): void {
    const { timeoutMs } = this.#limits
    this.#timer ??= setTimeout(() => {
      this.#refuse(
        new OnecopyError('REQUEST_TIMEOUT', `expected the whole message within ${formatMs(timeoutMs)}`),
      )
    }, timeoutMs).unref()
  }

  #stopTimer(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #take(chunk: Buffer): void {
    if (this.#isRefused) return
    const { maxMessageBytes } = this.#limits
    const { incompleteBytes, completeBytes, longestBytes } = this.#frames.take(chunk)
    if (longestBytes > maxMessageBytes) {
      const reason = `expected a message of at most ${maxMessageBytes} bytes (--max-body), got ${longestBytes}`
      this.#refuse(new OnecopyError('BODY_TOO_LARGE', reason))
      return
    }
    this.#hold(incompleteBytes + (this.#isUnary ? completeBytes : 0))
    if (this.#isOverLimit()) return
    if (!this.#isUnary) this.#time()
  }

  /** Refuses the call if what the worker holds exceeds the limit. */
  #isOverLimit(): boolean {
    const { maxReceivingBytes } = this.#limits
    const { bytes } = this.#total
    if (bytes <= maxReceivingBytes) return false
    const reason = `expected at most ${maxReceivingBytes} bytes of incomplete messages in this worker (--max-receiving), got ${bytes}`
    this.#refuse(new OnecopyError('RECEIVE_BUFFER_FULL', reason, { retryAfterSeconds: 1 }))
    return true
  }

  /** A stream has a deadline only while a message is incomplete and its next bytes are awaited. */
  #time(): void {
    if (this.#isReading && this.#heldBytes > 0) this.#startTimer()
    else this.#stopTimer()
  }

  #hold(bytes: number): void {
    this.#total.bytes += bytes - this.#heldBytes
    this.#heldBytes = bytes
  }

  #release(): void {
    this.#hold(0)
    this.#stopTimer()
  }

  #refuse(error: OnecopyError): void {
    this.#isRefused = true
    // Read on and drop: bytes that are not read before the stream ends stay charged to the window
    // of the
    // connection, and the client could send no more on it.
    this.#stream.removeAllListeners('data').on('data', () => {})
    this.#limits.log.debug({ code: error.code }, error.message)
    this.#call.sendStatus(statusObjectOf(error))
  }

  startReading(): void {
    this.#isReading = true
    if (!this.#isUnary) this.#time()
  }

  /**
   * Whether the call continues with a message of `bytes` after decompression. The message of a
   * unary call is held until its client has ended its side.
   */
  takesMessage(bytes: number): boolean {
    this.#isReading = false
    if (!this.#isUnary) this.#time()
    else if (bytes > this.#heldBytes) {
      this.#hold(bytes)
      return !this.#isOverLimit()
    }
    return true
  }

  /** A unary call begins now. */
  halfClosed(): void {
    this.#release()
  }

  /**
   * The call has ended, also if its client has not ended its side: without a reset it would keep
   * the memory.
   */
  ended(): void {
    this.#stopTimer()
    // In a later turn: a reset can overtake the headers with the status that were just written.
    if (this.#heldBytes > 0 || this.#isRefused) setImmediate(() => this.#stream.close())
  }
}

/** Reports to `Receiving` when the server wants more bytes. */
class ReceivingCall extends ServerInterceptingCall {
  readonly #receiving: Receiving

  constructor(call: ServerInterceptingCallInterface, receiving: Receiving) {
    super(call, {
      start(next) {
        const listener = new ServerListenerBuilder()
          .withOnReceiveMessage((message, proceed) => {
            if (receiving.takesMessage(sizes.get(message as object) ?? 0)) proceed(message)
          })
          .withOnReceiveHalfClose((proceed) => {
            receiving.halfClosed()
            proceed()
          })
          .withOnCancel(() => receiving.ended())
          .build()
        next(listener)
      },
    })
    this.#receiving = receiving
  }

  override startRead(): void {
    this.#receiving.startReading()
    super.startRead()
  }
}

/**
 * Ends calls that exceed a limit: BODY_TOO_LARGE, RECEIVE_BUFFER_FULL, REQUEST_TIMEOUT.
 */
export function limitReceiving(limits: ReceivingLimits): ServerInterceptor {
  const total: Total = { bytes: 0 }
  return (method, call) =>
    new ReceivingCall(call, new Receiving(call, { limits, total, isUnary: !method.requestStream }))
}
