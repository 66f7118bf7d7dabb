/**
 * The order in which workers boot when a server starts. A worker boots in two threads, its own and
 * the inference thread, so as many workers as CPUs slow each other down. Half as many boot until
 * the first is ready and serves, then as many as there are CPUs (docs/decisions/018-starts.md).
 */

/**
 * Starts every item, at most `concurrency` at a time, and half as many until the first start
 * succeeds. Rejects with the first failure, without waiting for starts in progress.
 */
export async function startInOrder<T>(
  items: readonly T[],
  concurrency: number,
  start: (item: T) => Promise<void>,
): Promise<void> {
  const early = Math.max(1, Math.floor(concurrency / 2))
  // One iterator for all lanes: each takes the next item from it.
  const waiting = items.values()
  let openLanes = () => {}
  const firstStarted = new Promise<void>((resolve) => {
    openLanes = resolve
  })
  const startLane = async (lane: number) => {
    if (lane >= early) await firstStarted
    for (const item of waiting) {
      await start(item)
      openLanes()
    }
  }
  await Promise.all(Array.from({ length: concurrency }, (_, lane) => startLane(lane)))
}
