/** One run of a server: starts it in the given folders, sends a few requests, and ends it. */
import { setTimeout as pause } from 'node:timers/promises'
import { processesInGroup } from '../harness/processes.js'
import { inferRequests } from '../harness/requests.js'
import { type RunningServer, startOnecopy } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import { verifySameAnswers } from '../harness/verify.js'
import type { GeneratedModel } from '../models/store.js'

const REQUESTS = 4
const EXIT_DEADLINE_MS = 20_000
const POLL_MS = 5
const ADOPTED = '"msg":"segment adopted from a dead server"'

export interface LifeOptions {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly workers: number
  readonly segmentDir: string
  readonly cacheDir: string
}

export interface Life {
  readonly server: RunningServer
  /** From the spawn of the process to its ready line. */
  readonly readyMs: number
  readonly isAdopted: boolean
}

/** @throws Error if the server does not become ready or its outputs vary. */
export async function beginLife(options: LifeOptions): Promise<Life> {
  const startedMs = performance.now()
  let isAdopted = false
  const server = await startOnecopy({
    ...options,
    onLine: (line) => {
      if (line.includes(ADOPTED)) isAdopted = true
    },
  })
  const { recipe } = options.model
  await verifySameAnswers([server, server], inferRequests(recipe, { encoding: 'json', count: REQUESTS }))
  return { server, readyMs: server.child.readyAtMs - startedMs, isAdopted }
}

/** Sends SIGKILL to all processes; resolves when the last has exited. */
export async function killLife(stage: Stage, { server: { child } }: Pick<Life, 'server'>): Promise<void> {
  child.killGroup()
  const deadlineMs = performance.now() + EXIT_DEADLINE_MS
  while (processesInGroup(child.pid).length > 0) {
    if (performance.now() > deadlineMs) throw new Error(`processes of ${child.name} survived SIGKILL`)
    await pause(POLL_MS)
  }
  await stage.stop(child)
}

/** Sends SIGTERM; resolves with the exit of the primary. */
export async function endLife(stage: Stage, { server: { child } }: Life): Promise<string> {
  await stage.stop(child)
  const { exitCode, signalCode } = child.process
  return signalCode ?? `code ${exitCode}`
}
