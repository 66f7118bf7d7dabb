/** Scrapes repeatedly as long as the server responds, and keeps the results. */
import { Agent, get } from 'node:http'
import type { Socket } from 'node:net'
import { ownerOf } from '../../bench/harness/connections.js'
import { untilSome } from '../helpers/waiting.js'

export class ScrapeLoop {
  /** Every complete response. */
  readonly texts: string[] = []
  /** Scrapes with a status other than 200. */
  readonly failures: string[] = []
  readonly #url: string
  readonly #agent = new Agent({ keepAlive: false })
  #socket: Socket | undefined
  #isStopped = false
  readonly #ended: Promise<void>

  constructor(adminUrl: string) {
    this.#url = adminUrl
    this.#ended = this.#run()
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const failure = await this.#scrape()
      if (failure !== null) this.failures.push(failure)
      // Stops after the server has exited.
      if (failure === 'ECONNREFUSED') return
    }
  }

  #scrape(): Promise<string | null> {
    return new Promise((resolve) => {
      const call = get(`${this.#url}/metrics`, { agent: this.#agent }, (response) => {
        let text = ''
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part
        })
        response.on('error', (thrown: NodeJS.ErrnoException) => resolve(thrown.code ?? thrown.message))
        response.on('end', () => {
          if (response.statusCode !== 200) return resolve(`status ${response.statusCode}`)
          this.texts.push(text)
          resolve(null)
        })
      })
      call.on('socket', (socket) => {
        this.#socket = socket
      })
      call.on('error', (thrown: NodeJS.ErrnoException) => resolve(thrown.code ?? thrown.message))
    })
  }

  async untilAnswered(): Promise<void> {
    const before = this.texts.length
    await untilSome('a scrape', () => (this.texts.length > before ? true : null))
  }

  /** Waits until the primary has a scrape in flight. */
  async untilAsking(primaryPid: number): Promise<void> {
    const port = Number(new URL(this.#url).port)
    await untilSome(
      'a scrape to be in flight',
      () => {
        const { localPort } = this.#socket ?? {}
        return localPort === undefined ? null : ownerOf({ port, workerPids: [primaryPid] }, localPort)
      },
      { pollMs: 0 },
    )
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await this.#ended
  }
}
