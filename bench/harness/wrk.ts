/**
 * Closed-loop load by wrk, if it is installed (`apt-get install wrk`). It takes a tenth of the CPU time of a
 * JavaScript load generator, which matters if server and generator share two cores.
 */
import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import type { ClosedLoopOptions } from './closed-loop.js'
import type { Sample } from './rounds.js'

const TIMEOUT_SECONDS = 30

let isInstalled: boolean | undefined

export function hasWrk(): boolean {
  isInstalled ??= spawnSync('wrk', ['--version']).error === undefined
  return isInstalled
}

/**
 * A Lua script that sends the requests in turn and prints one line of JSON. wrk measures latencies in
 * microseconds.
 */
function script(folder: string, { requests }: ClosedLoopOptions): string {
  const lines = [
    'local requests = {}',
    'local function body(path) local f = io.open(path, "rb"); local s = f:read("*a"); f:close(); return s end',
  ]
  for (const [i, { method, path, headers, body }] of requests.entries()) {
    const bodyPath = join(folder, `${i}.body`)
    writeFileSync(bodyPath, body)
    const pairs = Object.entries(headers).map(([name, value]) => `["${name}"] = "${value}"`)
    lines.push(
      `requests[${i + 1}] = wrk.format("${method}", "${path}", {${pairs.join(', ')}}, body("${bodyPath}"))`,
    )
  }
  lines.push(
    'local at = 0',
    'request = function() at = at % #requests + 1; return requests[at] end',
    'done = function(summary, latency)',
    '  local e = summary.errors',
    '  print(string.format("RESULT {\\"requests\\": %d, \\"durationUs\\": %d, \\"p50Us\\": %d, \\"p99Us\\": %d, \\"failures\\": %d}",',
    '    summary.requests - e.status, summary.duration, latency:percentile(50), latency:percentile(99),',
    '    e.connect + e.read + e.write + e.status + e.timeout))',
    'end',
  )
  // Requests are formatted in init, where wrk knows its host.
  const format = lines.filter((line) => line.startsWith('requests['))
  const rest = lines.filter((line) => !line.startsWith('requests['))
  const path = join(folder, 'requests.lua')
  writeFileSync(path, [...rest, 'init = function(args)', ...format, 'end', ''].join('\n'))
  return path
}

export async function wrkClosedLoop(options: ClosedLoopOptions): Promise<Sample> {
  const { port, connections, seconds } = options
  const folder = mkdtempSync(join(tmpdir(), 'onecopy-wrk-'))
  let wrk: ChildProcessByStdio<null, Readable, null> | undefined
  // Also runs when the bench is stopped.
  const clean = () => {
    wrk?.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
  process.once('exit', clean)
  try {
    const args = [
      '-t1',
      `-c${connections}`,
      `-d${Math.max(1, Math.round(seconds))}s`,
      '--timeout',
      `${TIMEOUT_SECONDS}s`,
    ]
    const child = spawn('wrk', [...args, '-s', script(folder, options), `http://127.0.0.1:${port}`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    wrk = child
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
    await new Promise((resolve, reject) => child.on('close', resolve).on('error', reject))
    const line = output.match(/^RESULT (.*)$/m)?.[1]
    if (line === undefined) throw new Error(`expected a result from wrk, got ${JSON.stringify(output)}`)
    const result = JSON.parse(line) as Record<
      'requests' | 'durationUs' | 'p50Us' | 'p99Us' | 'failures',
      number
    >
    return {
      requestsPerSecond: (result.requests * 1e6) / result.durationUs,
      // No latencies without responses.
      p50Ms: result.requests > 0 ? result.p50Us / 1000 : Number.NaN,
      p99Ms: result.requests > 0 ? result.p99Us / 1000 : Number.NaN,
      failures: result.failures,
    }
  } finally {
    process.off('exit', clean)
    clean()
  }
}
