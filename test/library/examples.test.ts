import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { freePort } from '../../bench/harness/free-port.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { until, untilSome, withinDeadline } from '../helpers/waiting.js'
import { missingOf, PYTHON_PATH } from './python-environment.js'

const FOLDER = join(PROJECT_ROOT, 'docs', 'examples')
const PHENOL = [256, 257, 264, 856, 857, 932, 1180, 1348, 1349, 1350, 1424]
const SAMPLE = readFileSync(join(PROJECT_ROOT, 'models', 'logp', 'sample-request.json'), 'utf8')
const TESTED = [
  'attach.py',
  // By test/ersilia/run-py.test.ts.
  'ersilia-run.py',
  'express.mjs',
  'fastify.mjs',
  'koa-cluster.mjs',
  'run.py',
  'serve.mjs',
  'worker-threads.mjs',
]

interface Running {
  readonly child: ChildProcess
  readonly url: string
  output(): string
  ended(): Promise<number | null>
}

async function example(t: ExecutionContext, name: string, env: NodeJS.ProcessEnv): Promise<Running> {
  const port = await freePort()
  const child = spawn(name.endsWith('.py') ? 'python3' : process.execPath, [join(FOLDER, name)], {
    env: { ...process.env, PYTHONPATH: PYTHON_PATH, PORT: String(port), ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit') as Promise<[number | null]>
  let output = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  return {
    child,
    url: `http://127.0.0.1:${port}`,
    output: () => output,
    ended: async () => (await withinDeadline(`${name} to end`, exited))[0],
  }
}

async function isUp(url: string): Promise<boolean> {
  return await fetch(url).then(
    (response) => response.status < 500,
    () => false,
  )
}

async function infers(url: string): Promise<boolean> {
  const response = await fetch(`${url}/v2/models/logp/infer`, { method: 'POST', body: SAMPLE })
  return (await response.text()).includes('1.40475')
}

async function predicts(url: string): Promise<string> {
  const response = await fetch(url, {
    method: 'POST',
    body: JSON.stringify({ bits: PHENOL }),
    headers: { 'Content-Type': 'application/json' },
  })
  return ((await response.json()) as { logp: number }).logp.toFixed(2)
}

test('every example is short, and tested here', (t) => {
  t.deepEqual(readdirSync(FOLDER).sort(), TESTED)
  for (const name of TESTED)
    t.true(readFileSync(join(FOLDER, name), 'utf8').trimEnd().split('\n').length <= 40, name)
})

test.serial('the examples that attach', async (t) => {
  const { server } = await startServer(t, { args: ['--workers', '1'] })
  const env = { ONECOPY_SEGMENT_DIR: server.segmentDir, WORKERS: '2', THREADS: '2' }

  const koa = await example(t, 'koa-cluster.mjs', env)
  await until('the Koa cluster to answer', () => isUp(`${koa.url}/v2/health/ready`))
  t.true(await infers(koa.url))
  // A connection to a worker that is killed gets no answer.
  const own = async () =>
    (await (await fetch(`${koa.url}/?bits=${PHENOL}`, { signal: AbortSignal.timeout(2000) })).json()) as {
      logp: number
      pid: number
    }
  for (let kills = 0; kills < 3; kills++) {
    const { logp, pid } = await untilSome('a worker to answer', () => own().catch(() => null))
    t.is(logp.toFixed(2), '1.40')
    process.kill(pid, 'SIGKILL')
  }
  await untilSome('a worker to answer', () => own().catch(() => null))
  koa.child.kill('SIGTERM')
  t.is(await koa.ended(), 0)

  for (const name of ['fastify.mjs', 'express.mjs']) {
    const app = await example(t, name, env)
    await until(`${name} to answer`, () => isUp(`${app.url}/ml/v2/health/ready`))
    t.true(await infers(`${app.url}/ml`), name)
    t.is(await predicts(`${app.url}/predict`), '1.40', name)
    app.child.kill('SIGTERM')
    t.is(await app.ended(), 0, name)
  }

  const threads = await example(t, 'worker-threads.mjs', env)
  t.is(await threads.ended(), 0)
  t.is(threads.output(), '1.40 1.40\n')

  for (const [name, modules] of [
    ['run.py', []],
    ['attach.py', ['numpy', 'onnxruntime']],
  ] as const) {
    const missing = missingOf(modules)
    if (missing.length > 0) t.log(`${name} is skipped: ${missing.join(', ')} not installed`)
    else {
      const script = await example(t, name, env)
      t.is(await script.ended(), 0, name)
      t.is(script.output(), '1.40\n', name)
    }
  }
  await stopCleanly(t, server)
})

test.serial('the example that serves', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const env = { ONECOPY_SEGMENT_DIR: segmentDir, ONECOPY_CACHE_DIR: temporaryFolder(t) }
  const serving = await example(t, 'serve.mjs', env)
  await until('it to be ready', () => serving.output().includes('inference on'))
  t.true(await infers(serving.url))
  serving.child.kill('SIGTERM')
  t.is(await serving.ended(), 0)
  t.deepEqual(readdirSync(segmentDir), [])
})
