/** Detects whether a polled value has been stable for long enough. */

/** Files that have not changed for this long are complete. */
export const STABLE_MS = 1000

export class Stability {
  readonly #seen = new Map<string, { readonly fingerprint: string; readonly sinceMs: number }>()

  /** Records a fingerprint; returns true once it has been the same for `STABLE_MS`. */
  isStable(key: string, fingerprint: string): boolean {
    const seen = this.#seen.get(key)
    if (seen?.fingerprint === fingerprint) return performance.now() - seen.sinceMs >= STABLE_MS
    this.#seen.set(key, { fingerprint, sinceMs: performance.now() })
    return false
  }

  /** Forgets all other keys. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#seen.keys()) if (!keys.has(key)) this.#seen.delete(key)
  }
}
