/**
 * ModelStreamInfer: requests of one stream run concurrently and are answered in order. A failed request is
 * answered with an error message, and the stream continues.
 */
import type { MethodDefinition, ServerDuplexStream, UntypedHandleCall } from '@grpc/grpc-js'
import { type AnyCall, type Call, type ServeOptions, serveCall } from './call.js'
import { onDraining, streamClosed } from './draining.js'
import { MAX_STREAMED, streamedInfer } from './infer.js'
import type { ModelInferRequest, ModelStreamInferResponse } from './schema/inference_pb.js'

type Stream = ServerDuplexStream<ModelInferRequest, ModelStreamInferResponse>

/** A draining server ends a stream that has had no request in flight for this long. */
const QUIET_MS = 100

/**
 * Resolves when the client has ended its side and every request is answered, or when the client cancels.
 * @throws OnecopyError SHUTTING_DOWN when the server drains, after the responses to all requests that were
 * read.
 */
function answerAll(stream: Stream, call: Call, options: ServeOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    let inFlight = 0
    let lastWritten = Promise.resolve()
    let quiet: NodeJS.Timeout | undefined
    let isRefusing = false
    const write = async (answer: Promise<ModelStreamInferResponse>) => {
      const response = await answer
      if (!stream.cancelled) call.sendMetadata()
      if (!stream.cancelled && !stream.write(response))
        // Backpressure: while the client does not read, responses wait and no more requests are read.
        await new Promise((resume) => {
          stream.once('drain', resume)
          stream.once('cancelled', resume)
        })
    }
    const refuseMore = () => {
      if (isRefusing) return
      isRefusing = true
      stream.pause()
      void lastWritten.then(() => reject(streamClosed()))
    }
    const endIfQuiet = () => {
      clearTimeout(quiet)
      if (options.draining.aborted && inFlight === 0) quiet = setTimeout(refuseMore, QUIET_MS)
    }
    stream.on('data', (message: ModelInferRequest) => {
      if (isRefusing) return
      clearTimeout(quiet)
      if (++inFlight >= MAX_STREAMED) stream.pause()
      // Each request is counted for its own model.
      const one = { ...call, model: undefined, timings: undefined }
      const answer = streamedInfer(message, { call: one, context: options.context })
      lastWritten = lastWritten
        .then(() => write(answer))
        .then(() => {
          if (--inFlight < MAX_STREAMED && !isRefusing) stream.resume()
          endIfQuiet()
        })
    })
    const stopWaiting = onDraining(options, { begin: endIfQuiet, end: refuseMore })
    const settle = (then: () => void) => {
      stopWaiting()
      clearTimeout(quiet)
      then()
    }
    stream.on('end', () => settle(() => void lastWritten.then(resolve)))
    stream.on('cancelled', () => settle(resolve))
    stream.on('error', () => settle(resolve))
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
