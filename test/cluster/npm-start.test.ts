/**
 * `npm start` and `npx` in a copy of the project, because `npm start` builds and other tests run
 * from dist.
 */
import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { type Exit, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'
import { until, untilSome } from '../helpers/waiting.js'

const PROJECT = mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))

test.before(() => {
  const files = ['package.json', '.npmrc', 'tsconfig.json', 'src', 'cluster', 'bench', 'test', 'models']
  for (const name of files) cpSync(join(PROJECT_ROOT, name), join(PROJECT, name), { recursive: true })
  symlinkSync(join(PROJECT_ROOT, 'node_modules'), join(PROJECT, 'node_modules'))
})
test.after.always(() => rmSync(PROJECT, { recursive: true, force: true }))

interface Line {
  readonly msg: string
  readonly role: string
  readonly port?: number
  readonly signal?: string
}

interface Run {
  readonly pid: number
  readonly segmentDir: string
  readonly exited: Promise<Exit>
  readonly log: () => Line[]
  readonly port: () => Promise<number>
}

/** Whether a process of the group is still running. */
function isGroupAlive(pid: number): boolean {
  try {
    process.kill(-pid, 0)
    return true
  } catch {
    return false
  }
}

/** An npm command in a new process group, as a shell with job control starts it. */
function run(t: ExecutionContext, [program = '', ...args]: readonly string[]): Run {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const flags = ['--port', '0', '--admin-port', '0', '--workers', '2']
  const folders = ['--segment-dir', segmentDir, '--cache-dir', temporaryFolder(t)]
  const npm = spawn(program, [...args, ...flags, ...folders], {
    cwd: PROJECT,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const pid = npm.pid as number
  let output = ''
  for (const stream of [npm.stdout, npm.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  const exited = new Promise<Exit>((resolve) => {
    npm.on('exit', (code, signal) => resolve({ code, signal }))
  })
  t.teardown(() => {
    if (isGroupAlive(pid)) process.kill(-pid, 'SIGKILL')
  })
  const log = () =>
    output.split('\n').flatMap((line) => (/^\{.*\}$/.test(line) ? [JSON.parse(line) as Line] : []))
  const port = () =>
    untilSome('the server to be ready', () => {
      if (npm.exitCode !== null) throw new Error(`npm has exited: ${output}`)
      return log().find(({ msg, role }) => msg === 'ready' && role === 'primary')?.port ?? null
    })
  return { pid, segmentDir, exited, log, port }
}

async function answers(port: number): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${port}/v2/models/logp/infer`, {
    method: 'POST',
    body: readFileSync(join(PROJECT, 'models', 'logp', 'sample-request.json')),
  })
  await response.arrayBuffer()
  return response.status === 200
}

/** Checks for one drain, no processes left, and nothing in shared memory. */
async function assertEnded(t: ExecutionContext, { pid, segmentDir, log }: Run): Promise<void> {
  await until('every process of the group to end', () => !isGroupAlive(pid))
  const messages = log().map(({ msg }) => msg)
  t.is(messages.filter((msg) => msg === 'stopping').length, 1)
  t.is(messages.filter((msg) => msg === 'stopped').length, 1)
  t.false(messages.includes('second signal: ending immediately'))
  t.deepEqual(readdirSync(segmentDir), [])
}

test.serial('npm start builds and serves; SIGTERM to npm ends everything, exit 0', async (t) => {
  const start = run(t, ['npm', 'start', '--'])
  t.true(await answers(await start.port()))
  process.kill(start.pid, 'SIGTERM')
  t.deepEqual(await start.exited, { code: 0, signal: null })
  await assertEnded(t, start)
  t.true(start.log().some(({ signal }) => signal === 'SIGTERM'))
})

// Reuses the first build: only the scripts before and after it are removed.
const START = ['npm', 'start', '--ignore-scripts', '--']

test.serial('SIGINT to npm start alone ends everything, exit 0', async (t) => {
  const start = run(t, START)
  t.true(await answers(await start.port()))
  process.kill(start.pid, 'SIGINT')
  t.deepEqual(await start.exited, { code: 0, signal: null })
  await assertEnded(t, start)
})

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  test.serial(
    `${signal} to the whole process group of npm start, as a terminal sends it, is one drain and not two`,
    async (t) => {
      const start = run(t, START)
      t.true(await answers(await start.port()))
      process.kill(-start.pid, signal)
      t.deepEqual(await start.exited, { code: 0, signal: null })
      await assertEnded(t, start)
    },
  )

test.serial('SIGTERM to npx ends everything, although its shell forwards no signals', async (t) => {
  const start = run(t, ['npx', 'onecopy', 'serve'])
  t.true(await answers(await start.port()))
  process.kill(start.pid, 'SIGTERM')
  await start.exited
  await assertEnded(t, start)
})
