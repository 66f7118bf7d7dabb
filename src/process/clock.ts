/** CLOCK_MONOTONIC, which all threads and processes of a host share. */

/** In nanoseconds; after 104 days of uptime, a number has a resolution of 2 ns. */
export function monotonicNs(): number {
  return Number(process.hrtime.bigint())
}

/** In milliseconds. */
export function monotonicMs(): number {
  return monotonicNs() / 1e6
}
