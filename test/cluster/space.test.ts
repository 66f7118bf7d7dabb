import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { spawnServer, temporaryFolder } from '../helpers/server.js'

/** A tmpfs of its own size; null where mounting is not allowed. */
function smallTmpfs(t: ExecutionContext, size: string): string | null {
  const path = temporaryFolder(t)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=0700`, 'tmpfs', path], { stdio: 'ignore' })
  } catch {
    return null
  }
  t.teardown(() => execFileSync('umount', [path]))
  return path
}

test.serial(
  'a segment that does not fit is refused with what it needs, what there is, and what to raise',
  async (t) => {
    const segmentDir = smallTmpfs(t, '2m')
    if (segmentDir === null) {
      t.pass('skipped: mounting a tmpfs needs root')
      return
    }
    const server = spawnServer(t, { segmentDir })
    t.deepEqual(await server.exited, { code: 1, signal: null })
    const fatal = server.log.find((line) => line.level === 'fatal')
    t.is(fatal?.code, 'SEGMENT_SPACE')
    t.regex(fatal?.msg ?? '', /needs 3\.3 MB .* 2\.1 MB are free: raise .*sizeLimit/)
    t.deepEqual(readdirSync(segmentDir), [])
  },
)

test.serial('a segment folder that is missing is named', async (t) => {
  const server = spawnServer(t, { args: ['--segment-dir', '/no/such/folder'] })
  t.deepEqual(await server.exited, { code: 1, signal: null })
  t.is(server.log.find((line) => line.level === 'fatal')?.code, 'SEGMENT_FOLDER_INVALID')
})
