/** Polls conditions with a deadline that names the condition. */

const DEADLINE_MS = 60_000
const POLL_MS = 5

/** Resolves with the first value that is not null; rejects with the condition after the deadline. */
export async function untilSome<Value>(
  what: string,
  look: () => Value | null | Promise<Value | null>,
  { deadlineMs = DEADLINE_MS, pollMs = POLL_MS } = {},
): Promise<Value> {
  const startedMs = performance.now()
  for (;;) {
    const found = await look()
    if (found !== null) return found
    const waitedMs = performance.now() - startedMs
    if (waitedMs > deadlineMs) throw new Error(`waited ${Math.round(waitedMs)} ms for ${what}`)
    // Without a pause for states that last only milliseconds.
    if (pollMs === 0) await new Promise((resolve) => setImmediate(resolve))
    else await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  await untilSome(what, async () => ((await holds()) ? true : null))
}

export async function withinDeadline<Value>(
  what: string,
  promise: Promise<Value>,
  deadlineMs = DEADLINE_MS,
): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${deadlineMs} ms for ${what}`)), deadlineMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
