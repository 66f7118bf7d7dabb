/** Follows the length-prefixed messages of a gRPC stream, to know how much of them has arrived. */

/** A flag and the length, before every message. */
export const PREFIX_BYTES = 5
/** What a chunk takes at least: a frame of one byte has a buffer of its own, with its objects. */
const MIN_CHUNK_COST_BYTES = 512

export interface Arrived {
  /** Memory of the message that has begun and is not complete. */
  readonly incompleteBytes: number
  /** Sizes of all messages that are complete, together. */
  readonly completeBytes: number
  /** Declared size of the longest message. */
  readonly longestBytes: number
}

export class MessageFrames {
  #prefixRead = 0
  #declaredBytes = 0
  #remainingBytes = 0
  #incompleteBytes = 0
  #completeBytes = 0
  #longestBytes = 0

  take(chunk: Uint8Array): Arrived {
    let begin = 0
    for (let at = 0; at < chunk.length; ) {
      if (this.#prefixRead < PREFIX_BYTES) {
        const byte = chunk[at++] as number
        // The first byte is the flag.
        if (this.#prefixRead++ > 0) this.#declaredBytes = this.#declaredBytes * 256 + byte
        if (this.#prefixRead < PREFIX_BYTES) continue
        this.#remainingBytes = this.#declaredBytes
        if (this.#declaredBytes > this.#longestBytes) this.#longestBytes = this.#declaredBytes
      } else {
        const bytes = Math.min(this.#remainingBytes, chunk.length - at)
        this.#remainingBytes -= bytes
        at += bytes
      }
      if (this.#remainingBytes > 0) continue
      this.#completeBytes += PREFIX_BYTES + this.#declaredBytes
      this.#prefixRead = 0
      this.#declaredBytes = 0
      this.#incompleteBytes = 0
      begin = at
    }
    if (begin < chunk.length) this.#incompleteBytes += Math.max(chunk.length - begin, MIN_CHUNK_COST_BYTES)
    return {
      incompleteBytes: this.#incompleteBytes,
      completeBytes: this.#completeBytes,
      longestBytes: this.#longestBytes,
    }
  }
}
