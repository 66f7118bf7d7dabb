/** A deadline for the message of a call: without one, a client that never completes it holds up a drain. */
import { ServerInterceptingCall, type ServerInterceptor, ServerListenerBuilder } from '@grpc/grpc-js'
import { OnecopyError } from '../errors.js'
import { formatMs } from '../units.js'
import { statusObjectOf } from './status.js'

/** Ends calls whose message is not complete in time. Requests of a stream may come at any time. */
export function receiveDeadline(timeoutMs: number): ServerInterceptor {
  return (method, call) => {
    if (method.requestStream) return new ServerInterceptingCall(call)
    return new ServerInterceptingCall(call, {
      start(next) {
        const timer = setTimeout(() => {
          const reason = `expected the whole message within ${formatMs(timeoutMs)}`
          call.sendStatus(statusObjectOf(new OnecopyError('REQUEST_TIMEOUT', reason)))
        }, timeoutMs).unref()
        const listener = new ServerListenerBuilder()
          .withOnReceiveMessage((message, proceed) => {
            clearTimeout(timer)
            proceed(message)
          })
          .withOnCancel(() => clearTimeout(timer))
          .build()
        next(listener)
      },
    })
  }
}
