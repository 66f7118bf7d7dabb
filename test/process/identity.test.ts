import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import test from 'ava'
import { isAlive, ownIdentity } from '../../src/process/identity.js'

test('a process is itself only with its start time and its boot', (t) => {
  const self = ownIdentity()
  t.is(self.pid, process.pid)
  t.true(isAlive(self))
  t.false(isAlive({ ...self, startTicks: self.startTicks + 1 }))
  t.false(isAlive({ ...self, bootId: 'another boot' }))
})

test('a zombie is dead', async (t) => {
  // The shell starts a child, becomes a program that never waits for it, and says the child's pid.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'])
  t.teardown(() => parent.kill('SIGKILL'))
  const [output] = (await once(parent.stdout, 'data')) as [Buffer]
  const pid = Number(output.toString())
  const fieldsOf = () => {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  }
  while (fieldsOf()[0] !== 'Z') await new Promise((resolve) => setImmediate(resolve))
  t.true(process.kill(pid, 0), 'signal 0 calls it alive')
  t.false(isAlive({ ...ownIdentity(), pid, startTicks: Number(fieldsOf()[19]) }))
})
