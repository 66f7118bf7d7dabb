/** `onecopy load` for tests. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { untilSome } from '../helpers/waiting.js'

const MAIN = join(PROJECT_ROOT, 'dist', 'cluster', 'main.js')

export interface Resident {
  readonly segmentDir: string
  readonly process: ChildProcess
  /** Its output so far. */
  output(): string
  stop(): Promise<number | null>
}

/** Starts `onecopy load`; resolves when it is ready. */
export async function load(t: ExecutionContext, args: readonly string[]): Promise<Resident> {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const child = spawn(
    process.execPath,
    [MAIN, 'load', ...args, '--segment-dir', segmentDir, '--cache-dir', temporaryFolder(t)],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  )
  t.teardown(() => child.kill('SIGKILL'))
  const exited = once(child, 'exit') as Promise<[number | null]>
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  await untilSome('the model to be ready', () => (/^ready/m.test(output) ? true : null))
  return {
    segmentDir,
    process: child,
    output: () => output,
    async stop() {
      child.kill('SIGTERM')
      const [code] = await exited
      return code
    },
  }
}
