import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'

test('beyond the limit an allocation fails and the process survives', (t) => {
  const module = join(PROJECT_ROOT, 'dist', 'src', 'process', 'data-limit.js')
  const program = `
    import { limitDataGrowth } from ${JSON.stringify(module)}
    const isSet = await limitDataGrowth(process.pid, 200e6)
    const fits = new ArrayBuffer(50e6).byteLength
    let message = ''
    try { new ArrayBuffer(400e6) } catch (thrown) { message = thrown.message }
    console.log(JSON.stringify({ isSet, fits, message }))
    console.log(await limitDataGrowth(2 ** 22 + 1, 1))`
  const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  })
  t.is(status, 0)
  const [first = '', unknownProcess] = stdout.trim().split('\n')
  t.deepEqual(JSON.parse(first), { isSet: true, fits: 50e6, message: 'Array buffer allocation failed' })
  t.is(unknownProcess, 'false')
})
