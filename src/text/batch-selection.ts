/** Selects the sequences of the next batch: those closest in length to the oldest one in the queue. */

export interface SelectionLimits {
  /** By the length of the longest. */
  readonly maxRows: (length: number) => number
  /** By the tokens of the batch, padding included. */
  readonly maxPaddingTokens: (batchTokens: number) => number
}

/**
 * Places of the selected sequences, longest first. The oldest, place 0, is always selected. Others join in the order of
 * the padding that they add, smallest first, until a limit is reached.
 * @param lengths In the order of arrival; not empty.
 */
export function selectBatch(lengths: readonly number[], limits: SelectionLimits): number[] {
  const places = lengths.map((_, place) => place).sort((a, b) => lengthOf(b) - lengthOf(a) || a - b)
  function lengthOf(place: number | undefined): number {
    return place === undefined ? 0 : (lengths[place] as number)
  }
  let from = places.indexOf(0)
  let to = from + 1
  let tokens = lengthOf(0)
  for (;;) {
    const rows = to - from
    const longest = lengthOf(places[from])
    const [longer, shorter] = [places[from - 1], places[to]]
    if (longer === undefined && shorter === undefined) break
    const byLonger = longer === undefined ? Number.POSITIVE_INFINITY : (lengthOf(longer) - longest) * rows
    const byShorter = shorter === undefined ? Number.POSITIVE_INFINITY : longest - lengthOf(shorter)
    const isLonger = byLonger < byShorter
    const added = lengthOf(isLonger ? longer : shorter)
    const length = Math.max(longest, added)
    const padded = (rows + 1) * length
    if (rows >= limits.maxRows(length) || padded - tokens - added > limits.maxPaddingTokens(padded)) break
    tokens += added
    if (isLonger) from--
    else to++
  }
  return places.slice(from, to)
}
