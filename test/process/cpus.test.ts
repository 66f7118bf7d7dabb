import { availableParallelism } from 'node:os'
import test from 'ava'
import { cgroupCpuQuota, usableCpus } from '../../src/process/cpus.js'

function files(contents: Record<string, string>) {
  return (path: string) => contents[path] ?? null
}

test('the quota of cgroup v2 is found on any ancestor, and the smallest applies', (t) => {
  const read = files({
    '/proc/self/cgroup': '0::/pod/container\n',
    '/sys/fs/cgroup/pod/container/cpu.max': 'max 100000\n',
    '/sys/fs/cgroup/pod/cpu.max': '150000 100000\n',
    '/sys/fs/cgroup/cpu.max': 'max 100000\n',
  })
  t.is(cgroupCpuQuota(read), 1.5)
})

test('the quota of cgroup v1 is read from the cpu controller', (t) => {
  const read = files({
    '/proc/self/cgroup': '5:memory:/x\n4:cpu,cpuacct:/x\n',
    '/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us': '50000\n',
    '/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us': '100000\n',
  })
  t.is(cgroupCpuQuota(read), 0.5)
  t.is(usableCpus(read), 1)
})

test('without a readable quota the affinity applies', (t) => {
  t.is(usableCpus(files({})), availableParallelism())
  const unlimited = files({
    '/proc/self/cgroup': '4:cpu:/\n',
    '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '-1\n',
    '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
  })
  t.is(usableCpus(unlimited), availableParallelism())
})
