/**
 * Scrapes `/metrics` continuously. Compares every scrape with the previous one and with the
 * clients: no counter decreases, and every response that a client received is counted.
 */
import { setTimeout as pause } from 'node:timers/promises'

const PAUSE_MS = 20
const MAX_PROBLEMS = 20

export interface WorkerState {
  readonly atMs: number
  readonly workersReady: number
  readonly workerIds: readonly string[]
}

export interface Watch {
  readonly scrapes: number
  readonly problems: readonly string[]
}

/** Values of all series that can only increase. */
function growingSeries(text: string): Map<string, number> {
  const kinds = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name, kind]))
  const series = new Map<string, number>()
  for (const [, name = '', labels = '', value] of text.matchAll(/^([a-zA-Z_:]+)(\{.*\})? (\S+)$/gm)) {
    const base = name.replace(/_(?:bucket|sum|count)$/, '')
    const isGrowing = kinds.get(name) === 'counter' || kinds.get(base) === 'histogram'
    if (isGrowing) series.set(`${name}${labels}`, Number(value))
  }
  return series
}

function workerStateIn(text: string, atMs: number): WorkerState {
  return {
    atMs,
    workersReady: Number(text.match(/^onecopy_workers_ready (\d+)$/m)?.[1] ?? 0),
    workerIds: [...text.matchAll(/^onecopy_worker_private_bytes\{worker="(\w+)"\}/gm)].map(
      ([, id]) => id ?? '',
    ),
  }
}

function successes(series: ReadonlyMap<string, number>): number {
  let sum = 0
  for (const [name, value] of series) {
    if (name.startsWith('onecopy_requests_total{') && name.includes('outcome="success"')) sum += value
  }
  return sum
}

export class MetricsWatch {
  readonly #url: string
  /** Number of 200 responses that clients have received. */
  readonly #answered: () => number
  readonly #problems: string[] = []
  #before: ReadonlyMap<string, number> = new Map()
  #scrapes = 0
  #isStopped = false
  #isAborted = false
  readonly #waiting = new Set<() => void>()
  #listeners: ((state: WorkerState) => void)[] = []
  readonly #ended: Promise<void>

  constructor(adminPort: number, answered: () => number) {
    this.#url = `http://127.0.0.1:${adminPort}/metrics`
    this.#answered = answered
    this.#ended = this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      await this.#scrape().catch((thrown: unknown) => this.#note(`a scrape failed: ${String(thrown)}`))
      await pause(PAUSE_MS)
    }
  }

  async #scrape(): Promise<void> {
    const atLeast = this.#answered()
    const response = await fetch(this.#url)
    const text = await response.text()
    if (response.status !== 200) throw new Error(`status ${response.status}`)
    this.#scrapes++
    const series = growingSeries(text)
    for (const [name, value] of this.#before) {
      const now = series.get(name)
      if (now === undefined || now < value) this.#note(`${name} went from ${value} to ${now ?? 'nothing'}`)
    }
    const counted = successes(series)
    if (counted < atLeast) this.#note(`${counted} successes counted, clients had ${atLeast}`)
    this.#before = series
    for (const listener of this.#listeners) listener(workerStateIn(text, performance.now()))
  }

  #note(problem: string): void {
    if (this.#problems.length < MAX_PROBLEMS) this.#problems.push(problem)
  }

  /** The server has exited: ends all current and future waits. */
  abort(): void {
    this.#isAborted = true
    for (const end of this.#waiting) end()
  }

  /** Resolves with the next scrape that satisfies the condition; null after the deadline. */
  untilWorkers(holds: (state: WorkerState) => boolean, deadlineMs: number): Promise<WorkerState | null> {
    return new Promise((resolve) => {
      const end = (state: WorkerState | null) => {
        clearTimeout(timer)
        this.#listeners = this.#listeners.filter((one) => one !== listener)
        this.#waiting.delete(abort)
        resolve(state)
      }
      const abort = () => end(null)
      const listener = (state: WorkerState) => {
        if (holds(state)) end(state)
      }
      const timer = setTimeout(() => end(null), deadlineMs)
      this.#listeners.push(listener)
      this.#waiting.add(abort)
      if (this.#isAborted) abort()
    })
  }

  async stop(): Promise<Watch> {
    this.#isStopped = true
    await this.#ended
    return { scrapes: this.#scrapes, problems: this.#problems }
  }
}
