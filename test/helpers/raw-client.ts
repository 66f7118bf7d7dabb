/** A client that sends arbitrary bytes over a socket. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { rawErrorProblem } from './api-check.js'

const DEADLINE_MS = 20_000

export interface RawAnswer {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string
}

export class RawClient {
  readonly socket: Socket
  /** Resolves when the connection is closed, by either side. */
  readonly closed: Promise<void>
  text = ''
  readonly #looks = new Set<() => void>()

  private constructor(url: string) {
    const { hostname, port } = new URL(url)
    this.socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
    this.socket.setEncoding('latin1').on('data', (text: string) => {
      this.text += text
      this.#look()
    })
    // A reset also closes the connection.
    this.socket.on('error', () => {})
    this.socket.on('end', () => {
      this.socket.end()
      this.#look()
    })
    this.closed = new Promise((resolve) =>
      this.socket.once('close', () => {
        this.#look()
        resolve()
      }),
    )
  }

  static async connect(url: string, bytes: string | Uint8Array = ''): Promise<RawClient> {
    const client = new RawClient(url)
    await once(client.socket, 'connect')
    client.socket.write(bytes)
    return client
  }

  #look(): void {
    for (const look of this.#looks) look()
  }

  /** Complete responses so far. */
  answers(): RawAnswer[] {
    const answers: RawAnswer[] = []
    for (let at = 0; ; ) {
      const headEnd = this.text.indexOf('\r\n\r\n', at)
      if (headEnd < 0) return answers
      const [statusLine = '', ...lines] = this.text.slice(at, headEnd).split('\r\n')
      const headers = Object.fromEntries(
        lines.map((line) => [
          line.slice(0, line.indexOf(':')).toLowerCase(),
          line.slice(line.indexOf(':') + 2),
        ]),
      )
      const bodyStart = headEnd + 4
      const length = Number(headers['content-length'] ?? 0)
      if (this.text.length < bodyStart + length) return answers
      const body = this.text.slice(bodyStart, bodyStart + length)
      const answer = { status: Number(statusLine.split(' ')[1]), headers, body }
      const problem = rawErrorProblem({ ...answer, body: Buffer.from(body, 'latin1') })
      if (problem !== null) throw new Error(problem)
      answers.push(answer)
      at = bodyStart + length
    }
  }

  async answered(count = 1): Promise<RawAnswer[]> {
    await this.#until(() => this.answers().length >= count, `${count} answers`)
    return this.answers()
  }

  /** Waits for the server to close the connection; resolves with everything received. */
  async ended(): Promise<RawAnswer[]> {
    await this.#until(() => this.socket.destroyed || this.socket.readableEnded, 'the connection to be closed')
    return this.answers()
  }

  async #until(isMet: () => boolean, what: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>((resolve, reject) => {
      const fail = (how: string) =>
        reject(new Error(`${how} ${what}: ${JSON.stringify(this.text.slice(-500))}`))
      timer = setTimeout(() => fail(`waited ${DEADLINE_MS} ms for`), DEADLINE_MS)
      const look = () => {
        if (isMet()) resolve()
        else if (this.socket.destroyed) fail('closed before')
      }
      this.#looks.add(look)
      look()
    }).finally(() => {
      clearTimeout(timer)
      this.#looks.clear()
    })
  }

  /** Closes with RST instead of FIN. */
  async reset(): Promise<void> {
    this.socket.resetAndDestroy()
    await this.closed
  }
}
