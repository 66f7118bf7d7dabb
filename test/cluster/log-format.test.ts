import test from 'ava'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'

test('logs are JSON if standard error is not a terminal', async (t) => {
  const { server } = await startServer(t)
  await stopCleanly(t, server)
  for (const line of server.stderr.trim().split('\n')) t.notThrows(() => JSON.parse(line), line)
})

test('--log-format pretty writes readable lines', (t) => {
  const { code, stderr } = runCommand([
    ...['serve', '--models', '/nonexistent', '--log-format', 'pretty', '--port', '0', '--admin-port', '0'],
    ...['--segment-dir', temporaryFolder(t, '/dev/shm'), '--cache-dir', temporaryFolder(t)],
  ])
  t.is(code, 1)
  t.notRegex(stderr, /^\{/m)
})

test('a failed start on a terminal ends with one sentence and a remedy', (t) => {
  const { stderr } = runCommand([
    ...['serve', '--models', '/nonexistent', '--log-format', 'pretty', '--port', '0', '--admin-port', '0'],
    ...['--segment-dir', temporaryFolder(t, '/dev/shm'), '--cache-dir', temporaryFolder(t)],
  ])
  const [sentence, remedy, ...rest] = stderr.trim().split('\n').slice(-2)
  t.regex(sentence ?? '', /^onecopy: the server cannot start: .*\/nonexistent.* \(REPOSITORY_INVALID\)$/)
  t.is(remedy, 'Correct the repository, or name another with --models.')
  t.deepEqual(rest, [])
})

test('a failed start without a terminal ends with a JSON line with the code', (t) => {
  const { code, stderr } = runCommand([
    ...['serve', '--models', '/nonexistent', '--port', '0', '--admin-port', '0'],
    ...['--segment-dir', temporaryFolder(t, '/dev/shm'), '--cache-dir', temporaryFolder(t)],
  ])
  t.is(code, 1)
  const lines = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { code?: string; level: string })
  t.true(lines.some((line) => line.level === 'fatal' && line.code === 'REPOSITORY_INVALID'))
})
