/**
 * Calls to the model `add` without a pause: unary calls, streams of a few requests, and streams that never
 * end. Every answer is checked, and what fails is recorded by its status.
 */
import { once } from 'node:events'
import { create } from '@bufbuild/protobuf'
import type { ClientOptions } from '@grpc/grpc-js'
import type { ExecutionContext } from 'ava'
import {
  ModelInferRequestSchema,
  type ModelInferResponse,
  type ModelStreamInferResponse,
} from '../../src/grpc/schema/inference_pb.js'
import { addRequest, GrpcClient, GrpcFailure } from '../helpers/grpc-client.js'

const STREAM_REQUESTS = 20
/** Requests of an endless stream without an answer so far. */
const WINDOW = 4

export interface LoadOptions {
  readonly address: string
  readonly channels: number
  /** Unary calls in flight on each channel. */
  readonly unaryPerChannel: number
  /**
   * Whether each channel also has a stream that ends after some requests, again and again, and one that never
   * ends.
   */
  readonly hasStreams: boolean
  readonly clientOptions?: ClientOptions
}

interface SentRequest {
  readonly x: number
  readonly message: ReturnType<typeof addRequest>
}

function constantOf({ rawOutputContents: [bytes] }: ModelInferResponse, x: number): string {
  const [a = Number.NaN, b = Number.NaN] = new Float32Array(Uint8Array.from(bytes ?? []).buffer)
  return `${a - x},${b - 2 * x}`
}

export class GrpcLoad {
  /** Answers by what the model added: a wrong answer is an entry that no model explains. */
  readonly added = new Map<string, number>()
  /** Unary calls that failed, as text. */
  readonly failures: string[] = []
  /** Unary calls that failed after their response had begun. */
  readonly cutResponses: string[] = []
  /** Streams that failed before the answer to their last request, as text; finite ones. */
  readonly cutStreams: string[] = []
  /** How endless streams ended, as text: each is opened anew, and what had no answer is sent again. */
  readonly reopened: string[] = []
  readonly #clients: GrpcClient[]
  readonly #loops: Promise<void>[]
  readonly #answeredBy: number[] = []
  #next = 0
  #isStopped = false
  #isOver = false

  constructor(t: ExecutionContext, options: LoadOptions) {
    const { address, channels, unaryPerChannel, hasStreams, clientOptions = {} } = options
    // After a failed test the loops would call a dead server for ever.
    t.teardown(() => {
      this.#isOver = true
      this.#isStopped = true
      for (const client of this.#clients) client.close()
    })
    this.#clients = Array.from(
      { length: channels },
      () => new GrpcClient(address, { options: clientOptions }),
    )
    const kinds = [
      ...Array.from({ length: unaryPerChannel }, () => this.#unary.bind(this)),
      ...(hasStreams ? [this.#finite.bind(this), this.#endless.bind(this)] : []),
    ]
    this.#loops = this.#clients.flatMap((client) =>
      kinds.map((kind) => {
        const loop = this.#answeredBy.push(0) - 1
        return kind(client, () => {
          this.#answeredBy[loop] = (this.#answeredBy[loop] ?? 0) + 1
        })
      }),
    )
  }

  get answered(): number {
    return this.#answeredBy.reduce((sum, count) => sum + count, 0)
  }

  /** The returned function is true once every loop has `count` more answers. */
  progress(count: number): () => boolean {
    const before = [...this.#answeredBy]
    return () => this.#answeredBy.every((answered, i) => answered >= (before[i] ?? 0) + count)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await Promise.all(this.#loops)
    for (const client of this.#clients) client.close()
  }

  #request(): SentRequest {
    const x = this.#next++ % 1000
    return { x, message: addRequest([x, 2 * x], { id: String(x) }) }
  }

  #note(answer: ModelInferResponse, x: number): void {
    const added = answer.id === String(x) ? constantOf(answer, x) : `an answer to ${answer.id}`
    this.added.set(added, (this.added.get(added) ?? 0) + 1)
  }

  async #unary(client: GrpcClient, onAnswer: () => void): Promise<void> {
    while (!this.#isStopped) {
      const { x, message } = this.#request()
      try {
        this.#note(await client.infer(message), x)
        onAnswer()
      } catch (thrown) {
        if (thrown instanceof GrpcFailure && thrown.hasBegun) this.cutResponses.push(String(thrown))
        else this.failures.push(String(thrown))
      }
    }
  }

  async #finite(client: GrpcClient, onAnswer: () => void): Promise<void> {
    while (!this.#isStopped) {
      const requests = Array.from({ length: STREAM_REQUESTS }, () => this.#request())
      let answers = 0
      const stream = client.stream()
      for (const { message } of requests) stream.write(create(ModelInferRequestSchema, message))
      stream.end()
      try {
        for await (const {
          inferResponse,
          errorMessage,
        } of stream as AsyncIterable<ModelStreamInferResponse>) {
          const { x = -1 } = requests[answers++] ?? {}
          if (inferResponse === undefined || errorMessage !== '') throw new Error(errorMessage)
          this.#note(inferResponse, x)
        }
        if (answers !== STREAM_REQUESTS) throw new Error(`${answers} answers`)
        onAnswer()
      } catch (thrown) {
        this.cutStreams.push(`after ${answers} answers: ${thrown}`)
      }
    }
  }

  /** In order; a request that has no answer when its stream ends is sent again on the next one. */
  async #endless(client: GrpcClient, onAnswer: () => void): Promise<void> {
    const waiting: SentRequest[] = []
    while (!this.#isOver && (!this.#isStopped || waiting.length > 0)) {
      const stream = client.stream()
      const send = ({ message }: SentRequest) => stream.write(create(ModelInferRequestSchema, message))
      const fill = () => {
        while (!this.#isStopped && waiting.length < WINDOW) {
          const request = this.#request()
          waiting.push(request)
          send(request)
        }
        if (waiting.length === 0) stream.end()
      }
      stream.on('data', ({ inferResponse, errorMessage }: ModelStreamInferResponse) => {
        const { x = -1 } = waiting.shift() ?? {}
        if (inferResponse === undefined || errorMessage !== '') this.failures.push(errorMessage)
        else this.#note(inferResponse, x)
        onAnswer()
        fill()
      })
      const ended = once(stream, 'status').then(
        () => undefined,
        (thrown) => thrown,
      )
      for (const request of waiting) send(request)
      fill()
      const failure = await ended
      if (failure !== undefined) this.reopened.push(String(new GrpcFailure(failure)))
    }
  }
}
