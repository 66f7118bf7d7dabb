/** Resources of a running server: memory of all its processes and files in shared memory. */
import { readdirSync } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { type ProcessMemory, readProcessMemory } from '../../src/process/memory.js'
import { allocatedBytes, BLOCK_BYTES } from '../../src/segment/holes.js'
import { mappedMemory, mappedMemoryWhere, processTree } from './processes.js'
import type { RunningServer } from './servers.js'
import { quantile } from './statistics.js'

/** Several samples of an idle process, because garbage collection changes the private memory. */
const SAMPLES = 5
const SAMPLE_PAUSE_MS = 50
/** Idle time before memory is read, so that garbage of earlier requests is collected. */
const SETTLE_MS = 2000

export interface FolderUse {
  readonly files: number
  /** Allocated bytes, without holes. */
  readonly bytes: number
}

export async function folderUse(folder: string | null): Promise<FolderUse> {
  let files = 0
  let bytes = 0
  if (folder === null) return { files, bytes }
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    files++
    bytes += await allocatedBytes(join(entry.parentPath, entry.name))
  }
  return { files, bytes }
}

/** Smaller segments keep their raw weights. */
const SMALL_BYTES = 4_000_000
/** Share of the segment size. Raw weights are about half of a segment. */
const RELEASED_BELOW = 0.9
/** Timeout for the release. A server that releases nothing is measured as it is. */
const RELEASE_MS = 20_000
const RELEASE_POLL_MS = 100

async function isReleased(folder: string): Promise<boolean> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.name.endsWith('.segment')) continue
    const { size, blocks } = await lstat(join(entry.parentPath, entry.name))
    if (size > SMALL_BYTES && blocks * BLOCK_BYTES > size * RELEASED_BELOW) return false
  }
  return true
}

/** Waits until the raw weights of every large segment are released. */
export async function untilReleased(folder: string | null): Promise<void> {
  if (folder === null) return
  const deadlineMs = performance.now() + RELEASE_MS
  while (!(await isReleased(folder)) && performance.now() < deadlineMs) await pause(RELEASE_POLL_MS)
}

/** Waits until an idle server has released what requests and loads need. */
export async function settle({ child, segmentDir }: RunningServer): Promise<void> {
  await untilReleased(segmentDir)
  await pause(SETTLE_MS)
  child.assertAlive()
}

/** @throws Error if the process has exited. */
export async function memoryOf(pid: number): Promise<ProcessMemory> {
  const memory = await readProcessMemory(pid)
  if (memory === null) throw new Error(`process ${pid} has exited`)
  return memory
}

/** Private memory of an idle process, as the median of several samples. */
export async function privateBytes(pid: number): Promise<number> {
  const samples: number[] = []
  for (let sample = 0; sample < SAMPLES; sample++) {
    await pause(SAMPLE_PAUSE_MS)
    samples.push((await memoryOf(pid)).privateBytes)
  }
  return quantile(samples, 0.5)
}

export function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** Host memory of a server. Every page counts once. */
export interface HostMemory {
  readonly processes: number
  /** Sum of the proportional set sizes of all processes. */
  readonly proportionalBytes: number
  /** Part of it in mappings of segment files, including removed ones. */
  readonly segmentMappedBytes: number
  /** Part of it in mappings of programs and libraries, which all processes share. */
  readonly programBytes: number
  /** Private memory of each process without segments and programs, the primary first. */
  readonly ownBytes: readonly number[]
  /** Files in the segment folder, mapped or not. */
  readonly segmentFolderBytes: number
  /** Total: mapped memory plus unmapped parts of the segments. */
  readonly totalBytes: number
}

function isProgram(path: string, segmentDir: string | null): boolean {
  if (!path.startsWith('/') || path.endsWith(' (deleted)')) return false
  return segmentDir === null || !path.startsWith(`${segmentDir}/`)
}

export async function hostMemory({ child, segmentDir }: RunningServer): Promise<HostMemory> {
  const pids = processTree(child.pid)
  const ownBytes: number[] = []
  let [proportionalBytes, segmentMappedBytes, programBytes] = [0, 0, 0]
  for (const pid of pids) {
    const memory = await memoryOf(pid)
    const segment =
      segmentDir === null ? { proportionalBytes: 0, privateBytes: 0 } : await mappedMemory(pid, segmentDir)
    const program = await mappedMemoryWhere(pid, (path) => isProgram(path, segmentDir))
    proportionalBytes += memory.proportionalBytes
    segmentMappedBytes += segment.proportionalBytes
    programBytes += program.proportionalBytes
    ownBytes.push(memory.privateBytes - segment.privateBytes - program.privateBytes)
  }
  const { bytes: segmentFolderBytes } = await folderUse(segmentDir)
  return {
    processes: pids.length,
    proportionalBytes,
    segmentMappedBytes,
    programBytes,
    ownBytes,
    segmentFolderBytes,
    totalBytes: proportionalBytes + Math.max(0, segmentFolderBytes - segmentMappedBytes),
  }
}
