/** The parent's side of runner-program.ts. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { ExecutionContext } from 'ava'
import type { AttachOptions } from '../../src/library/options.js'
import { untilSome } from '../helpers/waiting.js'
import type { Order, Report } from './runner-program.js'

type ReportOf<Type extends Report['type']> = Extract<Report, { type: Type }>

export class Runner {
  readonly process: ChildProcess
  readonly events: string[] = []
  #reports: Report[] = []

  constructor(t: ExecutionContext, options: { readonly uid?: number } = {}) {
    this.process = fork(fileURLToPath(new URL('./runner-program.js', import.meta.url)), { ...options })
    this.process.on('message', (report: Report) => {
      if (report.type === 'event') this.events.push(report.name)
      else this.#reports.push(report)
    })
    t.teardown(() => this.process.kill('SIGKILL'))
  }

  send(order: Order): void {
    this.process.send(order)
  }

  /** The next report; throws what failed. */
  async #next<Type extends Report['type']>(type: Type): Promise<ReportOf<Type>> {
    const report = await untilSome(`a runner to report ${type}`, () => this.#reports.shift() ?? null)
    if (report.type === type) return report as ReportOf<Type>
    throw Object.assign(new Error(JSON.stringify(report)), report)
  }

  async attach(name: string, options: AttachOptions): Promise<string> {
    this.send({ type: 'attach', name, options })
    return (await this.#next('attached')).version
  }

  /** The first output. */
  async run(input: readonly number[], shape: readonly number[]): Promise<readonly number[]> {
    this.send({ type: 'run', input, shape })
    const { outputs } = await this.#next('ran')
    return Object.values(outputs)[0] ?? []
  }

  /** Its private memory before it was closed, in bytes. The process must end by itself. */
  async close(): Promise<number> {
    const exited = once(this.process, 'exit')
    this.send({ type: 'close' })
    const { privateBytes } = await this.#next('closed')
    const [code] = await exited
    if (code !== 0) throw new Error(`expected a runner to end with 0, got ${code}`)
    return privateBytes
  }

  async emitted(event: string): Promise<void> {
    await untilSome(`a runner to emit ${event}`, () => (this.events.includes(event) ? true : null))
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const exited = once(this.process, 'exit')
    this.process.kill(signal)
    await exited
  }
}
