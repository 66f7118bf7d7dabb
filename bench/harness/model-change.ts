/** Replaces the file of a model while a server runs, and loads it. */
import { linkSync, mkdirSync, renameSync } from 'node:fs'
import { Agent } from 'node:http'
import { dirname, join } from 'node:path'
import type { GeneratedModel } from '../models/store.js'
import { send } from './client.js'
import type { References } from './generations.js'
import { addressedTo, type InferRequest } from './requests.js'
import { type RunningServer, startVariant } from './servers.js'
import type { Stage } from './stage.js'
import { outputOf } from './verify.js'

const LOAD_TIMEOUT_MS = 600_000

/** Writes the file completely under another name, then renames it. */
export function putModel(repositoryDir: string, name: string, source: string): void {
  const path = join(repositoryDir, name, '1', 'model.onnx')
  mkdirSync(dirname(path), { recursive: true })
  const staging = join(repositoryDir, name, 'staging')
  linkSync(source, staging)
  renameSync(staging, path)
}

/** Sends the request to the admin port; returns its duration in milliseconds. */
export async function changeModel(
  server: RunningServer,
  action: 'load' | 'unload',
  name: string,
): Promise<number> {
  const startedMs = performance.now()
  const response = await fetch(
    `http://127.0.0.1:${server.adminPort}/v2/repository/models/${name}/${action}`,
    { method: 'POST', signal: AbortSignal.timeout(LOAD_TIMEOUT_MS) },
  )
  const text = await response.text()
  if (response.status !== 200) throw new Error(`${action} of ${name}: status ${response.status}: ${text}`)
  return performance.now() - startedMs
}

/** Outputs of each generation, computed by a separate plain Koa server. */
export async function referencesOf(
  stage: Stage,
  generations: readonly GeneratedModel[],
  requests: readonly InferRequest[],
): Promise<References> {
  const [{ repositoryDir }] = generations as [GeneratedModel]
  const plain = await startVariant('plain-koa', { stage, model: { repositoryDir }, workers: 1 })
  const agent = new Agent({ keepAlive: true })
  const references: number[][][] = []
  for (const { name, version } of generations) {
    const answers: number[][] = []
    for (const request of requests) {
      const addressed = addressedTo(request, { name, version })
      answers.push([...outputOf(await send({ agent, port: plain.port, request: addressed }))])
    }
    references.push(answers)
  }
  agent.destroy()
  await stage.stop(plain.child)
  return references
}
