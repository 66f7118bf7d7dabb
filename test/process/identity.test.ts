import test from 'ava'
import { isAlive, ownIdentity } from '../../src/process/identity.js'
import { startZombie } from '../helpers/processes.js'

test('a process is identified by pid, start time and boot id', (t) => {
  const self = ownIdentity()
  t.is(self.pid, process.pid)
  t.true(isAlive(self))
  t.false(isAlive({ ...self, startTicks: self.startTicks + 1 }))
  t.false(isAlive({ ...self, bootId: 'another boot' }))
})

test('a zombie counts as dead', async (t) => {
  const zombie = await startZombie(t)
  t.true(process.kill(zombie.pid, 0), 'signal 0 calls it alive')
  t.false(isAlive(zombie))
})
