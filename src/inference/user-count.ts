/** Counts the users of a resource that can only be closed when it has none. */
export class UserCount {
  #users = 0
  readonly #onUnused: (() => void)[] = []

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#users++
    try {
      return await work()
    } finally {
      this.#users--
      if (this.#users === 0) for (const notify of this.#onUnused.splice(0)) notify()
    }
  }

  /** Resolves when there are no users. Call it only after new users are prevented. */
  unused(): Promise<void> {
    if (this.#users === 0) return Promise.resolve()
    return new Promise((resolve) => {
      this.#onUnused.push(resolve)
    })
  }
}
