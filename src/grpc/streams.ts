/**
 * ModelStreamInfer: requests of one stream run at the same time and are answered in their order. One that fails has a
 * response that says so, and the stream goes on.
 */
import type { MethodDefinition, ServerDuplexStream, UntypedHandleCall } from '@grpc/grpc-js'
import { type AnyCall, type Call, type ServeOptions, serveCall } from './call.js'
import { MAX_STREAMED, streamedInfer } from './infer.js'
import type { ModelInferRequest, ModelStreamInferResponse } from './schema/inference_pb.js'

type Stream = ServerDuplexStream<ModelInferRequest, ModelStreamInferResponse>

/** Resolves when the client has ended its side and has every answer, or has left. */
function answerAll(stream: Stream, call: Call, options: ServeOptions): Promise<void> {
  return new Promise((resolve) => {
    let inside = 0
    let lastWritten = Promise.resolve()
    const write = async (answer: Promise<ModelStreamInferResponse>) => {
      const response = await answer
      if (!stream.cancelled && !stream.write(response))
        // A client that does not read keeps what it asked for waiting, and asks for no more.
        await new Promise((resume) => {
          stream.once('drain', resume)
          stream.once('cancelled', resume)
        })
    }
    stream.on('data', (message: ModelInferRequest) => {
      if (++inside >= MAX_STREAMED) stream.pause()
      // Each has a model of its own to be counted for.
      const one = { ...call, model: undefined, timings: undefined }
      const answer = streamedInfer(message, { call: one, context: options.context })
      lastWritten = lastWritten
        .then(() => write(answer))
        .then(() => {
          if (--inside < MAX_STREAMED) stream.resume()
        })
    })
    stream.on('end', () => void lastWritten.then(resolve))
    stream.on('cancelled', () => resolve())
    stream.on('error', () => resolve())
  })
}

export function serveInferStream(
  definition: MethodDefinition<unknown, unknown>,
  options: ServeOptions,
): { readonly definition: MethodDefinition<unknown, unknown>; readonly handler: UntypedHandleCall } {
  const handler = (stream: Stream) => {
    const done = serveCall(stream as unknown as AnyCall, options, {
      scope: 'infer',
      work: (call) => answerAll(stream, call, options),
    })
    void done.then((ended) => {
      if ('failure' in ended) stream.emit('error', ended.status)
      else stream.end()
    })
  }
  return { definition, handler: handler as UntypedHandleCall }
}
