/** Whether what is looked at again and again has stayed the same for long enough to be believed. */

/** Files that looked the same for so long are complete. */
export const STABLE_MS = 1000

export class Stability {
  readonly #seen = new Map<string, { readonly looks: string; readonly sinceMs: number }>()

  /** Notes how something looks; true once it has looked so for `STABLE_MS`. */
  isStable(key: string, looks: string): boolean {
    const seen = this.#seen.get(key)
    if (seen?.looks === looks) return performance.now() - seen.sinceMs >= STABLE_MS
    this.#seen.set(key, { looks, sinceMs: performance.now() })
    return false
  }

  /** Forgets everything but these. */
  keep(keys: ReadonlySet<string>): void {
    for (const key of this.#seen.keys()) if (!keys.has(key)) this.#seen.delete(key)
  }
}
