/** Requests with a configurable run time: the product of identity matrices is the identity. */
import { iterations } from '../helpers/model-inputs.js'
import { until } from '../helpers/waiting.js'
import { type HeldRequest, holdRequest } from './held-request.js'

const SIZE = 128

function identityBytes(): Uint8Array {
  const identity = new Float32Array(SIZE * SIZE)
  for (let i = 0; i < SIZE; i++) identity[i * SIZE + i] = 1
  return new Uint8Array(identity.buffer)
}

const EXPECTED = identityBytes()

export function slowRequest(url: string, count: number): HeldRequest {
  return holdRequest({ url, model: 'slow', inputs: [iterations(count)], expected: EXPECTED })
}

export async function scrape(adminUrl: string): Promise<string> {
  return await (await fetch(`${adminUrl}/metrics`)).text()
}

/** The value of a gauge, or the sum of a counter over its series. */
export function metricOf(text: string, name: string, labels = ''): number {
  const lines = text.split('\n').filter((line) => line.startsWith(name) && line.includes(labels))
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

export interface HeldByWorker {
  readonly request: HeldRequest
  readonly ownerPid: number
}

interface OccupyOptions {
  readonly url: string
  readonly adminUrl: string
  readonly workerPids: readonly number[]
  readonly iterations: number
}

const MAX_ATTEMPTS = 4

/** Two requests per worker: one runs, one is queued. On a busy machine they take longer. */
export async function occupyWorkers(options: OccupyOptions): Promise<HeldByWorker[]> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const held = await tryToOccupy({ ...options, iterations: options.iterations * 3 ** attempt })
    if (held !== null) return held
  }
  throw new Error(`requests were answered before they were observed in their workers, ${MAX_ATTEMPTS} times`)
}

/** Null if one of the requests was answered too early. */
async function tryToOccupy({
  url,
  adminUrl,
  workerPids,
  iterations: count,
}: OccupyOptions): Promise<HeldByWorker[] | null> {
  const requests: HeldRequest[] = []
  const held: HeldByWorker[] = []
  let isOver = false
  for (let i = 0; i < 2 * workerPids.length && !isOver; i++) {
    const request = slowRequest(url, count)
    requests.push(request)
    void request.end.then(() => {
      isOver = true
    })
    // One after the other, so that round robin distributes them evenly.
    await until('a request to reach a worker', () => {
      const ownerPid = request.ownerPid(workerPids)
      if (ownerPid !== null) held.push({ request, ownerPid })
      return ownerPid !== null || isOver
    })
  }
  await until('a queued request in each worker', async () => {
    return isOver || metricOf(await scrape(adminUrl), 'onecopy_queue_depth ') === workerPids.length
  })
  if (!isOver) return held
  await Promise.all(requests.map(({ end }) => end))
  return null
}
