import { spawnSync } from 'node:child_process'
import { chmodSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { attach } from '../../cluster/index.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { serveAdd, serveWide, WIDE_INPUTS, wideRow } from './owner.js'
import { Runner } from './runner.js'

const ENTRY = join(PROJECT_ROOT, 'dist', 'cluster', 'index.js')

function runNode(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  return spawnSync(process.execPath, args, { encoding: 'utf8', env: { ...process.env, ...env } })
}

test.serial('importing does nothing, and require works where Node allows it', (t) => {
  const look = `
    const listeners = process.eventNames().flatMap((name) => process.listeners(name)).length
    const environment = JSON.stringify(process.env)
    const globals = Object.keys(globalThis)`
  const compare = `
    console.log(JSON.stringify({
      type: [typeof library.attach, typeof library.serve],
      handles: process.getActiveResourcesInfo().filter((one) => one !== 'CloseReq' && one !== 'PipeWrap'),
      listeners: process.eventNames().flatMap((name) => process.listeners(name)).length - listeners,
      environment: environment === JSON.stringify(process.env),
      globals: Object.keys(globalThis).filter((name) => !globals.includes(name) && !name.startsWith('__zod')),
      native: process.report.getReport().sharedObjects.filter((path) => /onnxruntime|koffi|mmap/.test(path)),
    }))`
  const nothing = {
    type: ['function', 'function'],
    handles: [],
    listeners: 0,
    environment: true,
    globals: [],
    native: [],
  }
  const imported = runNode([
    '--input-type=module',
    '-e',
    `${look}; const library = await import('onecopy'); ${compare}`,
  ])
  t.deepEqual(JSON.parse(imported.stdout), nothing, imported.stderr)
  const required = runNode(['--no-warnings', '-e', `${look}; const library = require('onecopy'); ${compare}`])
  if (required.status === 0) t.deepEqual(JSON.parse(required.stdout), nothing)
  else t.regex(required.stderr, /ERR_REQUIRE_ESM/)
})

/** Attaches in the process itself, in threads and in cluster workers, and prints the answers. */
const EVERYWHERE = `
import cluster from 'node:cluster'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { attach } from ${JSON.stringify(ENTRY)}
const answer = async () => {
  await using model = await attach('add')
  return [...(await model.run({ x: Float32Array.of(10, 20) })).y.data]
}
if (!isMainThread) parentPort.postMessage(await answer())
else if (cluster.isWorker) {
  process.send(await answer())
  process.disconnect()
} else {
  const threads = [1, 2, 3].map(() => new Worker(fileURLToPath(import.meta.url)))
  const workers = [1, 2].map(() => cluster.fork())
  const all = await Promise.all([answer(), ...[...threads, ...workers].map(async (one) => (await once(one, 'message'))[0])])
  console.log(JSON.stringify(all))
}
`

test.serial(
  'plain processes, worker threads and workers of a cluster attach, and end by themselves',
  async (t) => {
    const { server } = await serveAdd(t, [1, 1])
    const script = join(temporaryFolder(t), 'everywhere.mjs')
    // Explicit resource management is newer than the oldest Node.js.
    writeFileSync(
      script,
      EVERYWHERE.replace('await using model =', 'const model =').replace(
        'return [...(await model.run({ x: Float32Array.of(10, 20) })).y.data]',
        'const { y } = await model.run({ x: Float32Array.of(10, 20) }); await model.close(); return [...y.data]',
      ),
    )
    const { status, stdout, stderr } = runNode([script], { ONECOPY_SEGMENT_DIR: server.segmentDir })
    t.is(status, 0, stderr)
    t.deepEqual(JSON.parse(stdout), Array(6).fill([11, 21]))
    await stopCleanly(t, server)
  },
)

test.serial('attaching and closing again and again leaves no file open and no mapping', async (t) => {
  const { server } = await serveWide(t)
  const { segmentDir } = server
  const open = () =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes('onecopy')
      } catch {
        return false
      }
    }).length
  const before = open()
  const x = Float32Array.from(wideRow())
  let expected: unknown
  for (let cycle = 0; cycle < 20; cycle++) {
    const model = await attach('wide', { segmentDir })
    const { y } = await model.run({ x })
    expected ??= y?.data
    t.deepEqual(y?.data, expected as never)
    await model.close()
    await model.close()
  }
  t.is(open(), before)
  await t.throwsAsync(attach('wide', { segmentDir, signal: AbortSignal.abort() }), {
    code: 'REQUEST_CANCELLED',
  })
  t.is(open(), before)
  await stopCleanly(t, server)
})

test.serial('attaching to an owner that does not answer ends at the deadline', async (t) => {
  const { server } = await serveAdd(t, [1, 1])
  server.process.kill('SIGSTOP')
  const error = await t.throwsAsync(attach('add', { segmentDir: server.segmentDir, timeoutMs: 300 }))
  t.like(error, { code: 'TIMEOUT' })
  t.regex(error?.message ?? '', /waited 300 ms for the process that keeps model add/)
  server.process.kill('SIGCONT')
  await stopCleanly(t, server)
})

test.serial('models of another user are not attached to', async (t) => {
  if (process.getuid?.() !== 0) {
    t.log('skipped: only root can become another user')
    t.pass()
    return
  }
  const segmentDir = temporaryFolder(t, '/dev/shm')
  chmodSync(segmentDir, 0o1777)
  const otherUser = 65_534
  const { server } = await serveWide(t, { segmentDir })
  const other = new Runner(t, { uid: otherUser })
  await t.throwsAsync(other.attach('wide', { segmentDir }), { code: 'MODEL_NOT_RESIDENT' })
  // And the other way: not even root's library does.
  const theirs = temporaryFolder(t, '/dev/shm')
  chmodSync(theirs, 0o1777)
  const cacheDir = temporaryFolder(t)
  chmodSync(cacheDir, 0o1777)
  const foreign = await startServer(t, {
    ...{ segmentDir: theirs, cacheDir, args: ['--workers', '1'] },
    wrap: (command) => ['setpriv', `--reuid=${otherUser}`, '--clear-groups', ...command],
    env: { HOME: cacheDir },
  })
  await t.throwsAsync(attach('logp', { segmentDir: theirs }), { code: 'MODEL_NOT_RESIDENT' })
  await foreign.server.stop()
  const own = new Runner(t)
  await own.attach('wide', { segmentDir })
  t.is((await own.run(wideRow(), [1, WIDE_INPUTS])).length > 0, true)
  await own.close()
  await stopCleanly(t, server)
})
