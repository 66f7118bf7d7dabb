/** Controls a runner process. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Command, Report, Target } from './commands.js'

const MAIN = fileURLToPath(new URL('runner-main.js', import.meta.url))
const ANSWER_TIMEOUT_MS = 60_000

export class Runner implements AsyncDisposable {
  readonly #process: ChildProcess
  readonly #exited: Promise<unknown>
  readonly reports: Report[] = []
  #notify: () => void = () => {}

  constructor(target: Target) {
    this.#process = fork(MAIN, [JSON.stringify(target)])
    this.#exited = once(this.#process, 'exit')
    this.#process.on('message', (report: Report) => {
      this.reports.push(report)
      this.#notify()
    })
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  send(command: Command): void {
    this.#process.send(command)
  }

  /** Resolves with the report number `count` that `isWanted` accepts, including earlier reports. */
  async reported(isWanted: (report: Report) => boolean, count = 1): Promise<Report> {
    const limit = AbortSignal.timeout(ANSWER_TIMEOUT_MS)
    for (;;) {
      const found = this.reports.filter(isWanted)[count - 1]
      if (found !== undefined) return found
      await new Promise<void>((resolve, reject) => {
        this.#notify = resolve
        limit.onabort = () =>
          reject(new Error(`runner ${this.pid} reported ${JSON.stringify(this.reports.at(-1))}`))
      })
    }
  }

  /** Sends a command and waits for its report. @throws Error with the failure of the runner. */
  async ask(command: Command): Promise<Report> {
    const before = this.reports.length
    this.send(command)
    const isAnswer = (report: Report) => report.type !== 'event' && this.reports.indexOf(report) >= before
    const report = await this.reported(isAnswer)
    if (report.type === 'failed') throw new Error(`${report.code}: ${report.message}`)
    return report
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
