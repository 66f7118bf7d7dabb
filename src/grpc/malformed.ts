/**
 * A message that does not parse as its type. grpc-js would answer INTERNAL, but it is a fault of the client.
 */

import { messageOf, type OnecopyError } from '../errors.js'
import { bodyMalformed } from '../protocol/v2/faults.js'

export class MalformedMessage {
  readonly reason: string

  constructor(thrown: unknown) {
    this.reason = messageOf(thrown)
  }
}

export function malformed({ reason }: MalformedMessage): OnecopyError {
  return bodyMalformed(`expected a message of the method's type: ${reason}`)
}

/** @throws OnecopyError BODY_MALFORMED. */
export function requireMessage<T>(message: T): T {
  if (message instanceof MalformedMessage) throw malformed(message)
  return message
}
