/**
 * `onecopy tune MODEL`: measures which numbers of workers and threads suit a model on this machine. Each
 * setting is a real server under load. Settings run one after another, in two rounds of opposite order to
 * cancel drift. The table shows medians; the best setting has the most requests per second.
 */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import Table from 'cli-table3'
import * as z from 'zod'
import { ACCESS_OPTIONS } from '../../src/config/defence-options.js'
import { urlHost } from '../../src/config/host-names.js'
import { environmentName } from '../../src/config/load.js'
import { OnecopyError } from '../../src/errors.js'
import { programFile } from '../../src/installation.js'
import { withDeadline } from '../../src/lifecycle.js'
import { usableCpus } from '../../src/process/cpus.js'
import { parseDurationMs } from '../../src/units.js'
import { commandLine } from './arguments.js'

const ADMIN_HOST = '127.0.0.1'
const START_TIMEOUT_MS = 10 * 60_000
const WARM_UP_MS = 1000
const ROUNDS = 2
const CONNECTIONS_PER_CPU = 8
/** Sizes tried for undeclared dimensions until a request succeeds. */
const TRIAL_SIZES = [8, 16, 1, 32, 64, 224]

interface Setting {
  readonly workers: number
  readonly threads: number
}

interface Measurement {
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly privateMb: number
}

const ReadyLine = z.object({ msg: z.literal('ready'), host: z.string(), port: z.int(), adminPort: z.int() })
const Metadata = z.object({
  inputs: z.array(
    z.object({
      name: z.string(),
      datatype: z.string(),
      shape: z.array(z.int()),
      optional: z.boolean().default(false),
    }),
  ),
})

/** From one single-threaded worker per CPU to one worker with all CPUs; never more threads than CPUs. */
export function settingsFor(cpus: number): Setting[] {
  const settings: Setting[] = []
  for (let threads = 1; threads <= cpus; threads *= 2)
    settings.push({ workers: Math.floor(cpus / threads), threads })
  if (!settings.some(({ workers }) => workers === 1)) settings.push({ workers: 1, threads: cpus })
  return settings
}

/** A temporary repository with links to the model; `remove` deletes it. */
function repositoryOf(model: string): { readonly dir: string; readonly remove: () => void } {
  const path = resolve(model)
  const stat = statSync(path, { throwIfNoEntry: false })
  if (stat === undefined)
    throw new OnecopyError(
      'REPOSITORY_INVALID',
      `expected an ONNX file or a repository at ${path}, found nothing`,
    )
  if (stat.isDirectory()) return { dir: path, remove: () => {} }
  const root = mkdtempSync(join(tmpdir(), 'onecopy-tune-'))
  // External data files are next to the model.
  for (const name of readdirSync(dirname(path))) {
    if (name === basename(path) || !name.endsWith('.onnx'))
      symlinkSync(join(dirname(path), name), join(root, name))
  }
  return { dir: root, remove: () => rmSync(root, { recursive: true, force: true }) }
}

/** The measured server uses plain HTTP, without keys or limits. */
function withoutAccessOptions(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const unset = Object.keys(ACCESS_OPTIONS).map((name) => [environmentName(name), ''])
  return { ...environment, ...Object.fromEntries(unset) }
}

class TunedServer implements AsyncDisposable {
  readonly #process
  readonly #args: readonly string[]

  constructor(models: string, { workers, threads }: Setting, extra: readonly string[]) {
    this.#args = [
      '--models',
      models,
      '--workers',
      `${workers}`,
      '--threads',
      `${threads}`,
      '--port',
      '0',
      '--admin-host',
      ADMIN_HOST,
      '--admin-port',
      '0',
    ]
    this.#process = spawn(
      process.execPath,
      [programFile('cluster/main.js'), 'serve', ...this.#args, ...extra],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: withoutAccessOptions(process.env),
      },
    )
  }

  async ready(): Promise<{ url: string; adminUrl: string }> {
    let last = ''
    for await (const line of createInterface({ input: this.#process.stderr })) {
      last = line
      const parsed = line.startsWith('{') ? ReadyLine.safeParse(JSON.parse(line)) : null
      if (parsed?.success !== true) continue
      const { host, port, adminPort } = parsed.data
      this.#process.stderr.resume()
      return { url: `http://${urlHost(host)}:${port}`, adminUrl: `http://${ADMIN_HOST}:${adminPort}` }
    }
    throw new OnecopyError('WORKER_BOOT_FAILED', `the server did not start: ${last}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = this.#process.exitCode === null ? once(this.#process, 'exit') : null
    this.#process.kill('SIGTERM')
    await exited
  }
}

function elementOf(datatype: string): number | string | boolean {
  if (datatype === 'BYTES') return 'a'
  if (datatype === 'BOOL') return true
  return datatype.startsWith('FP') ? 0.5 : 1
}

function bodyFor(metadata: z.infer<typeof Metadata>, rows: number, size: number): string {
  const required = metadata.inputs.filter(({ optional }) => !optional)
  const inputs = required.map(({ name, datatype, shape }) => {
    const filled = shape.map((dim, axis) => (dim >= 0 ? dim : axis === 0 ? rows : size))
    const count = filled.reduce((product, dim) => product * dim, 1)
    return { name, datatype, shape: filled, data: new Array(count).fill(elementOf(datatype)) }
  })
  return JSON.stringify({ inputs })
}

/** Finds a request that the model accepts. @throws OnecopyError REQUEST_INVALID if there is none. */
async function workingBody(url: string, model: string, rows: number): Promise<string> {
  const metadata = Metadata.parse(await (await fetch(`${url}/v2/models/${model}`)).json())
  let why = ''
  for (const size of TRIAL_SIZES) {
    const body = bodyFor(metadata, rows, size)
    const response = await fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body })
    if (response.ok) return body
    why = await response.text()
  }
  throw new OnecopyError('REQUEST_INVALID', `model ${model} accepts no synthetic request: ${why}`)
}

function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0
}

/** Runs closed loops for `ms`; returns sorted latencies in milliseconds. */
async function load(
  url: string,
  body: string,
  { connections, ms }: { connections: number; ms: number },
): Promise<number[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const latencies: number[] = []
  const endMs = performance.now() + ms
  const one = () =>
    new Promise<void>((resolveOne, reject) => {
      const startedMs = performance.now()
      request(url, { method: 'POST', agent }, (response) => {
        response.resume().on('end', () => {
          if (response.statusCode === 200) latencies.push(performance.now() - startedMs)
          resolveOne()
        })
      })
        .on('error', reject)
        .end(body)
    })
  const loop = async () => {
    while (performance.now() < endMs) await one()
  }
  await Promise.all(Array.from({ length: connections }, loop))
  agent.destroy()
  return latencies.sort((a, b) => a - b)
}

async function measure(
  models: string,
  setting: Setting,
  options: { ms: number; rows: number; extra: readonly string[] },
): Promise<Measurement> {
  await using server = new TunedServer(models, setting, options.extra)
  const { url, adminUrl } = await withDeadline(server.ready(), START_TIMEOUT_MS, 'the server to start')
  const [model] = z
    .object({ models: z.array(z.string()).min(1) })
    .parse(await (await fetch(`${url}/v2/models`)).json()).models
  const body = await workingBody(url, model as string, options.rows)
  const inferUrl = `${url}/v2/models/${model}/infer`
  const connections = CONNECTIONS_PER_CPU * usableCpus()
  await load(inferUrl, body, { connections, ms: WARM_UP_MS })
  const latencies = await load(inferUrl, body, { connections, ms: options.ms })
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  const privateBytes = [...text.matchAll(/^onecopy_worker_private_bytes\{.*\} (\d+)$/gm)].map((match) =>
    Number(match[1]),
  )
  return {
    requestsPerSecond: (latencies.length * 1000) / options.ms,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    privateMb: Math.max(...privateBytes, 0) / 1e6,
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return (
    ((sorted[Math.floor((sorted.length - 1) / 2)] ?? 0) + (sorted[Math.ceil((sorted.length - 1) / 2)] ?? 0)) /
    2
  )
}

function resultTable(rows: readonly { setting: Setting; measured: readonly Measurement[] }[]): {
  text: string
  best: Setting
} {
  const table = new Table({
    head: ['workers', 'threads', 'requests/s', 'p50 ms', 'p99 ms', 'private MB, largest worker', ''],
    colAligns: ['right', 'right', 'right', 'right', 'right', 'right', 'left'],
    style: { head: [], border: [], compact: true },
  })
  const speed = (measured: readonly Measurement[]) => median(measured.map((one) => one.requestsPerSecond))
  const best = rows.reduce((a, b) => (speed(b.measured) > speed(a.measured) ? b : a))
  for (const row of rows) {
    const { setting, measured } = row
    const of = (name: keyof Measurement, digits: number) =>
      median(measured.map((one) => one[name])).toFixed(digits)
    table.push([
      String(setting.workers),
      String(setting.threads),
      of('requestsPerSecond', 0),
      of('p50Ms', 2),
      of('p99Ms', 2),
      of('privateMb', 0),
      row === best ? 'best' : '',
    ])
  }
  return { text: table.toString(), best: best.setting }
}

/** Runs `onecopy tune`; resolves with the exit code. */
export async function runTune(argv: readonly string[]): Promise<number> {
  const { values, positionals } = commandLine('tune', argv)
  const [model] = positionals
  const ms = parseDurationMs(values.seconds ?? '3s')
  const rows = Number(values.rows ?? 1)
  if (model === undefined || positionals.length > 1 || ms === null || !Number.isInteger(rows) || rows < 1) {
    throw new OnecopyError(
      'CONFIG_INVALID',
      'expected: onecopy tune MODEL [--seconds 3s] [--rows 1] (see onecopy tune --help)',
    )
  }
  const extra = values['cache-dir'] === undefined ? [] : ['--cache-dir', values['cache-dir']]
  const repository = repositoryOf(model)
  const results = settingsFor(usableCpus()).map((setting) => ({ setting, measured: [] as Measurement[] }))
  try {
    for (let round = 0; round < ROUNDS; round++) {
      for (const { setting, measured } of round % 2 === 0 ? results : [...results].reverse()) {
        process.stderr.write(
          `round ${round + 1} of ${ROUNDS}: ${setting.workers} workers x ${setting.threads} threads\n`,
        )
        measured.push(await measure(repository.dir, setting, { ms, rows, extra }))
      }
    }
  } finally {
    repository.remove()
  }
  const { text, best } = resultTable(results)
  process.stdout.write(
    `${text}\nbest on this machine: onecopy serve --workers ${best.workers} --threads ${best.threads}\n` +
      'With one worker, the segment counts as private memory, because no other process maps it.\n',
  )
  return 0
}
