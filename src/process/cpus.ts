/**
 * How many CPUs this process may use: the smaller of its affinity and its cgroup's quota. The host's
 * count is not it: a pod limited to two CPUs on a 64-core node would fork 64 workers.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'

export type ReadText = (path: string) => string | null

export function readTextOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

/** CPUs allowed by the cgroup, as a fraction, or null where no quota is set. Source: cgroups(7), v1 and v2. */
export function cgroupCpuQuota(readText: ReadText = readTextOrNull): number | null {
  let smallest: number | null = null
  const take = (quota: number, period: number) => {
    if (!(quota > 0 && period > 0)) return
    if (smallest === null || quota / period < smallest) smallest = quota / period
  }
  for (const line of (readText('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = line.match(/^\d+:([^:]*):(.*)$/) ?? []
    if (controllers === undefined || path === undefined) continue
    const isV2 = controllers === ''
    if (!isV2 && !controllers.split(',').includes('cpu')) continue
    // A limit may sit on any ancestor. In a container the own path is often not visible: the root then is.
    for (let at = path; ; at = dirname(at)) {
      if (isV2) {
        const [quota, period] = (readText(join('/sys/fs/cgroup', at, 'cpu.max')) ?? '').trim().split(' ')
        take(Number(quota), Number(period))
      } else {
        const root = join('/sys/fs/cgroup', controllers, at)
        take(
          Number(readText(join(root, 'cpu.cfs_quota_us'))),
          Number(readText(join(root, 'cpu.cfs_period_us'))),
        )
      }
      if (at === '/' || at === '.') break
    }
  }
  return smallest
}

/** Whole CPUs to plan for, at least 1. */
export function usableCpus(readText: ReadText = readTextOrNull): number {
  const quota = cgroupCpuQuota(readText)
  const affinity = availableParallelism()
  return Math.max(1, Math.min(affinity, quota === null ? affinity : Math.ceil(quota)))
}
