/** Work on large bodies in slices, so that the event loop serves other requests in between. */

/** Time that one slice may take. */
const SLICE_MS = 2

/** Runs all steps without a pause. */
export function withoutPause<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
  }
}

/** Runs steps until a slice of time is over, then continues in a later turn of the event loop. */
export async function inSlices<T>(steps: Generator<void, T>): Promise<T> {
  let sliceEndMs = performance.now() + SLICE_MS
  for (;;) {
    const step = steps.next()
    if (step.done === true) return step.value
    if (performance.now() < sliceEndMs) continue
    await new Promise((resolve) => setImmediate(resolve))
    sliceEndMs = performance.now() + SLICE_MS
  }
}
