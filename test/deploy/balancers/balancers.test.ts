import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { freePort } from '../../../bench/harness/free-port.js'
import { OPTIONS } from '../../../src/config/schema.js'
import { parseDurationMs } from '../../../src/units.js'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { killWithChildren } from '../../helpers/processes.js'
import { type ServerUnderTest, spawnServer, temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import { keepAsking } from '../../helpers/steady-clients.js'
import { testWithTools, toolPath } from '../../helpers/tools.js'
import { until } from '../../helpers/waiting.js'

const FOLDER = join(PROJECT_ROOT, 'deploy', 'balancers')
const CLIENTS = 8
const PHASE_REQUESTS = 500
const INPUT = {
  ...{ name: 'x', datatype: 'FP32', shape: [1, 2] },
  bytes: new Uint8Array(Float32Array.of(1, 1).buffer),
}

interface Place {
  readonly port: number
  readonly adminPort: number
}

function startAt(t: ExecutionContext, { port, adminPort }: Place, models: string): ServerUnderTest {
  return spawnServer(t, {
    models,
    args: ['--workers', '1', '--port', `${port}`, '--admin-port', `${adminPort}`],
  })
}

async function answeredBy({ adminPort }: Place): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
  return Number(text.match(/^onecopy_requests_total\{.*outcome="success"\} (\d+)$/m)?.[1] ?? 0)
}

/** The example configuration with the addresses of this test. */
function configure(name: string, places: readonly Place[], listen: number): string {
  return places
    .reduce(
      (text, { port, adminPort }, i) =>
        text
          .replaceAll(`onecopy-${'ab'[i]}:8080 port 9090`, `127.0.0.1:${port} port ${adminPort}`)
          .replaceAll(`onecopy-${'ab'[i]}:8080`, `127.0.0.1:${port}`),
      readFileSync(join(FOLDER, name), 'utf8'),
    )
    .replace('bind :8000', `bind 127.0.0.1:${listen}`)
    .replace('listen 8000', `listen 127.0.0.1:${listen}`)
}

const BALANCERS = [
  {
    tool: 'haproxy',
    file: 'haproxy.cfg',
    args: (path: string) => ['-db', '-f', path],
    idle: /pool-purge-delay (\S+)/,
  },
  {
    tool: 'nginx',
    file: 'nginx.conf',
    args: (path: string) => [
      '-p',
      join(path, '..'),
      '-e',
      'stderr',
      '-c',
      path,
      '-g',
      'daemon off; pid nginx.pid;',
    ],
    idle: /keepalive_timeout ([^;]+);/,
  },
]

for (const { tool, file, args, idle } of BALANCERS) {
  testWithTools(
    `behind ${tool} no request fails when one of two servers is killed and restarted, and the other is stopped`,
    [tool],
    async (t) => {
      const [, idleTime = ''] = readFileSync(join(FOLDER, file), 'utf8').match(idle) ?? []
      t.true(
        (parseDurationMs(idleTime) ?? Number.NaN) <
          (parseDurationMs(OPTIONS.keepAliveTimeout.default() as string) ?? 0),
      )

      const models = writeModel(temporaryFolder(t), 'add', addModel())
      const place = async () => ({ port: await freePort(), adminPort: await freePort() })
      const [a, b] = [await place(), await place()]
      const first = startAt(t, a, models)
      const other = startAt(t, b, models)
      await Promise.all([first.ready(), other.ready()])

      const folder = temporaryFolder(t)
      const listen = await freePort()
      writeFileSync(join(folder, file), configure(file, [a, b], listen))
      const balancer = spawn(toolPath(tool) as string, args(join(folder, file)), {
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      let said = ''
      balancer.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text
      })
      const exited = once(balancer, 'exit')
      t.teardown(async () => {
        balancer.kill('SIGTERM')
        await exited
      })
      const url = `http://127.0.0.1:${listen}`
      await until(`${tool} to answer`, () => {
        if (balancer.exitCode !== null) throw new Error(`${tool} ended: ${said}`)
        return fetch(`${url}/v2/health/ready`).then(
          ({ ok }) => ok,
          () => false,
        )
      })

      let answered = 0
      const failures: string[] = []
      const clients = keepAsking({
        ...{ url, model: 'add', input: INPUT, count: CLIENTS },
        onAnswer: (status, text) => {
          if (status === 200 && text.includes('[2,3]')) answered++
          else failures.push(`${status} ${text}`)
        },
        onFailure: (message) => failures.push(message),
      })
      const moreAnswers = async () => {
        const from = answered
        await until('more answers', () => answered >= from + PHASE_REQUESTS || failures.length > 0)
      }
      await moreAnswers()
      await until('both servers to serve', async () => (await answeredBy(a)) > 0 && (await answeredBy(b)) > 0)

      await killWithChildren(first.process.pid as number)
      await moreAnswers()
      const again = startAt(t, a, models)
      await again.ready()
      await until(
        'the restarted server to get requests',
        async () => (await answeredBy(a)) > PHASE_REQUESTS / 10,
      )

      t.deepEqual(await other.stop(), { code: 0, signal: null })
      await moreAnswers()
      await clients.stop()
      t.deepEqual(failures, [])
      t.log(`${answered} requests through ${tool}, ${failures.length} failed`)
    },
  )
}
