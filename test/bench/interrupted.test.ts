import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test from 'ava'
import { processesMarked } from '../../bench/harness/processes.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { until } from '../helpers/waiting.js'

test('an interrupted bench ends its processes and leaves no file in shared memory', async (t) => {
  const mark = `BENCH_TEST_MARK=${process.pid}`
  const [name = '', value = ''] = mark.split('=')
  const variants = 'onecopy,plain-koa,thread-pool'
  const bench = spawn(
    process.execPath,
    [
      join(PROJECT_ROOT, 'dist', 'bench', 'main.js'),
      ...['request-load', '--models', 'tiny-16', '--seconds', '600', '--variants', variants],
    ],
    { env: { ...process.env, [name]: value }, stdio: ['ignore', 'ignore', 'pipe'] },
  )
  t.teardown(() => bench.kill('SIGKILL'))
  const lines = createInterface({ input: bench.stderr })
  const ended = once(bench, 'exit')
  // Warm-ups are short; the first measurement would take ten minutes.
  for await (const line of lines) if (line.includes('round 1')) break
  const serving = processesMarked(mark).find(({ args }) => args.includes('--segment-dir'))
  const segmentDir = serving?.args[serving.args.indexOf('--segment-dir') + 1] ?? ''
  t.true(existsSync(segmentDir), segmentDir)
  bench.kill('SIGINT')
  const [exitCode] = await ended
  t.is(exitCode, 130)
  await until('all of its processes to end', () => processesMarked(mark).length === 0)
  t.false(existsSync(segmentDir))
})
