/**
 * The number of CPUs available to this process: the smaller of its affinity and its cgroup quota. The CPU
 * count of the host is wrong in a container: a pod limited to two CPUs on a 64-core node would fork 64
 * workers.
 */
import { availableParallelism } from 'node:os'
import { type ReadText, readLimits, readTextOrNull } from './cgroup.js'

/** CPUs allowed by the cgroup, as a fraction; null without a quota. */
export function cgroupCpuQuota(readText: ReadText = readTextOrNull): number | null {
  let smallest: number | null = null
  const files = { v1: ['cpu.cfs_quota_us', 'cpu.cfs_period_us'], v2: 'cpu.max' }
  for (const { isV2, texts } of readLimits('cpu', files, readText)) {
    const [quota, period] = (isV2 ? (texts[0] ?? '').trim().split(' ') : texts).map(Number)
    if (quota === undefined || period === undefined || !(quota > 0 && period > 0)) continue
    if (smallest === null || quota / period < smallest) smallest = quota / period
  }
  return smallest
}

/** Whole CPUs to plan for, at least 1. */
export function usableCpus(readText: ReadText = readTextOrNull): number {
  const quota = cgroupCpuQuota(readText)
  const affinity = availableParallelism()
  return Math.max(1, Math.min(affinity, quota === null ? affinity : Math.ceil(quota)))
}
