/**
 * A real headless browser, if available: Chromium over its pipe (Chrome DevTools Protocol). Tests that need
 * it are skipped with a message otherwise.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import test, { type ExecutionContext, type Implementation } from 'ava'
import { TEMPORARY_PREFIX } from './temporary-names.js'
import { untilSome, withinDeadline } from './waiting.js'

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

function findBrowser(): string | null {
  const folders = (process.env.PATH ?? '').split(':')
  const paths = folders.flatMap((folder) => NAMES.map((name) => join(folder, name)))
  return paths.find((path) => existsSync(path)) ?? null
}

const BROWSER = findBrowser()

export function testInBrowser(title: string, implementation: (t: ExecutionContext) => Promise<void>): void {
  if (BROWSER !== null) test(title, implementation as Implementation<[]>)
  else test.skip(`${title} (skipped: no Chromium on the PATH)`, implementation as Implementation<[]>)
}

interface Message {
  readonly id?: number
  readonly method?: string
  readonly params?: Readonly<Record<string, unknown>>
  readonly result?: Readonly<Record<string, unknown>>
  readonly error?: { readonly message: string }
}

export class BrowserPage {
  readonly #process: ChildProcess
  readonly #waiters = new Map<number, (message: Message) => void>()
  #session: string | undefined
  #calls = 0
  /** Exceptions, failed loads and policy violations reported by the browser. */
  readonly complaints: string[] = []

  private constructor(t: ExecutionContext) {
    const profile = mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run']
    this.#process = spawn(
      BROWSER as string,
      [...flags, '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank'],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    )
    const ended = new Promise((resolve) => this.#process.once('close', resolve))
    t.teardown(async () => {
      const closed = withinDeadline('the browser to close', Promise.all([this.#send('Browser.close'), ended]))
      await closed.catch(() => this.#process.kill('SIGKILL'))
      // Some of its processes may exit slightly later.
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    })
    const output = this.#process.stdio[4] as Readable
    let rest = ''
    output.setEncoding('utf8').on('data', (text: string) => {
      const parts = (rest + text).split('\0')
      rest = parts.pop() ?? ''
      for (const part of parts) this.#take(JSON.parse(part) as Message)
    })
  }

  /** With `isTrusted`, scripts of the test ignore the policy of the page. */
  static async open(t: ExecutionContext, url: string, { isTrusted = false } = {}): Promise<BrowserPage> {
    const page = new BrowserPage(t)
    const { targetId } = (await page.#send('Target.createTarget', { url: 'about:blank' })) as {
      targetId: string
    }
    const attached = await page.#send('Target.attachToTarget', { targetId, flatten: true })
    page.#session = (attached as { sessionId: string }).sessionId
    for (const domain of ['Runtime', 'Log', 'Page']) await page.#send(`${domain}.enable`)
    await page.#send('Page.setBypassCSP', { enabled: isTrusted })
    await page.#send('Page.navigate', { url })
    await page.until(`document.readyState === 'complete' && location.href !== 'about:blank'`)
    return page
  }

  #take({ id, method, params, ...outcome }: Message): void {
    if (id !== undefined) this.#waiters.get(id)?.(outcome)
    if (method === 'Runtime.exceptionThrown' || method === 'Log.entryAdded')
      this.complaints.push(JSON.stringify(params))
  }

  async #send(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#calls
    const answer = new Promise<Message>((resolve) => this.#waiters.set(id, resolve))
    const session = this.#session === undefined ? {} : { sessionId: this.#session }
    const input = this.#process.stdio[3] as Writable
    input.write(`${JSON.stringify({ id, method, params, ...session })}\0`)
    const { result, error } = await answer
    if (error !== undefined) throw new Error(`${method}: ${error.message}`)
    return result
  }

  /** Evaluates an expression in the page and awaits its promise; the value must be JSON. */
  async evaluate<Value>(expression: string): Promise<Value> {
    const { result, exceptionDetails } = (await this.#send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    })) as { result: { value: Value }; exceptionDetails?: { exception?: { description?: string } } }
    if (exceptionDetails !== undefined) throw new Error(exceptionDetails.exception?.description)
    return result.value
  }

  /** Waits until an expression is truthy, and returns its value. */
  async until<Value>(expression: string): Promise<Value> {
    return await untilSome(expression, async () => (await this.evaluate<Value>(expression)) || null)
  }
}
