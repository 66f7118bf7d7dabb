import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'

test('a process that may not grow so far is told so by its allocation, and lives on', (t) => {
  const module = join(PROJECT_ROOT, 'dist', 'src', 'process', 'data-limit.js')
  const program = `
    import { limitDataGrowth } from ${JSON.stringify(module)}
    const isSet = await limitDataGrowth(process.pid, 200e6)
    const fits = new ArrayBuffer(50e6).byteLength
    let words = ''
    try { new ArrayBuffer(400e6) } catch (thrown) { words = thrown.message }
    console.log(JSON.stringify({ isSet, fits, words }))
    console.log(await limitDataGrowth(2 ** 22 + 1, 1))`
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  })
  t.is(status, 0)
  const [first = '', ofNobody] = stdout.trim().split('\n')
  t.deepEqual(JSON.parse(first), { isSet: true, fits: 50e6, words: 'Array buffer allocation failed' })
  t.is(ofNobody, 'false')
})
