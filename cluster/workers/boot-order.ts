/**
 * The order in which workers boot when a server starts. A worker boots in two threads, its own and
 * the inference thread, so as many workers as CPUs would slow each other down. Half as many boot
 * until the first is ready and serves, and as many as CPUs afterwards (docs/decisions/018-starts.md).
 */

/**
 * Starts every item, at most `concurrency` at a time. Rejects with the first failure; starts that
 * have begun are not awaited then.
 */
export async function startInOrder<T>(
  items: Iterable<T>,
  concurrency: number,
  start: (item: T) => Promise<void>,
): Promise<void> {
  const early = Math.max(1, Math.floor(concurrency / 2))
  // One iterator for all lanes: each takes the next item from it.
  const waiting = items[Symbol.iterator]()
  let openLanes = () => {}
  const isFirstReady = new Promise<void>((resolve) => {
    openLanes = resolve
  })
  const startLane = async (lane: number) => {
    if (lane >= early) await isFirstReady
    for (let next = waiting.next(); !next.done; next = waiting.next()) {
      await start(next.value)
      openLanes()
    }
  }
  await Promise.all(Array.from({ length: concurrency }, (_, lane) => startLane(lane)))
}
