import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'
import { z } from 'zod'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { until } from '../helpers/waiting.js'

const Package = z.looseObject({ scripts: z.record(z.string(), z.string()) })
const ReadyLine = z.object({ msg: z.literal('ready'), role: z.literal('primary'), pid: z.int() })

/** The project as it is, built already: a build would rewrite files under tests that run beside this one. */
function builtProject(t: ExecutionContext): string {
  const folder = temporaryFolder(t)
  const manifest = Package.parse(JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')))
  const { prestart: _, ...scripts } = manifest.scripts
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, scripts }))
  for (const name of ['dist', 'models', 'node_modules'])
    symlinkSync(join(PROJECT_ROOT, name), join(folder, name))
  return folder
}

/** Resolves with the pid of the primary. */
async function readyPid(npm: ChildProcess): Promise<number> {
  if (npm.stderr === null) throw new Error('expected standard error to be a pipe')
  for await (const line of createInterface({ input: npm.stderr })) {
    if (!line.startsWith('{')) continue
    const ready = ReadyLine.safeParse(JSON.parse(line))
    if (ready.success) {
      npm.stderr.resume()
      return ready.data.pid
    }
  }
  throw new Error('npm start ended before the server was ready')
}

for (const { signal, isGroup } of [
  { signal: 'SIGTERM', isGroup: false },
  { signal: 'SIGINT', isGroup: false },
  // Ctrl-C in a terminal reaches npm, its shell and the server.
  { signal: 'SIGINT', isGroup: true },
] as const) {
  test(`${signal} to ${isGroup ? 'the process group of npm start' : 'npm start'} ends the server and leaves nothing`, async (t) => {
    const segmentDir = temporaryFolder(t, '/dev/shm')
    const flags = ['--port', '0', '--admin-port', '0', '--workers', '1']
    const folders = ['--segment-dir', segmentDir, '--cache-dir', temporaryFolder(t)]
    const npm = spawn('npm', ['start', '--', ...flags, ...folders], {
      cwd: builtProject(t),
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const npmPid = npm.pid as number
    t.teardown(() => {
      try {
        process.kill(-npmPid, 'SIGKILL')
      } catch {
        // All of it has ended.
      }
    })
    const exited = once(npm, 'exit')
    const serverPid = await readyPid(npm)
    process.kill(isGroup ? -npmPid : npmPid, signal)
    await exited
    await until('the server to end', () => !existsSync(`/proc/${serverPid}`))
    t.deepEqual(readdirSync(segmentDir), [])
  })
}
