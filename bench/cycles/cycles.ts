/** Cycles that all end with SIGKILL, except the last. Leftovers must not accumulate. */
import { readdirSync } from 'node:fs'
import { basename } from 'node:path'
import type { Check } from '../harness/report.js'
import { emptyCache, segmentFolder } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import type { GeneratedModel } from '../models/store.js'
import { beginLife, endLife, killLife } from './life.js'

export interface CyclesOptions {
  readonly stage: Stage
  readonly model: GeneratedModel
  readonly workers: number
  readonly cycles: number
  readonly onCycle?: (note: string) => void
}

export interface CyclesResult {
  readonly readyMs: readonly number[]
  readonly adopted: number
  /** The most segments in the folder while a server ran. */
  readonly mostSegments: number
  readonly exit: string
  readonly filesLeft: readonly string[]
  readonly workFoldersLeft: readonly string[]
}

function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true }) as string[]
}

export async function runCycles(options: CyclesOptions): Promise<CyclesResult> {
  const { stage, model, workers, cycles, onCycle = () => {} } = options
  const segmentDir = segmentFolder(stage)
  const cacheDir = emptyCache(stage)
  const readyMs: number[] = []
  let adopted = 0
  let mostSegments = 0
  let exit = ''
  for (let cycle = 0; cycle <= cycles; cycle++) {
    const life = await beginLife({ stage, model, workers, segmentDir, cacheDir })
    readyMs.push(life.readyMs)
    if (life.isAdopted) adopted++
    const segments = filesIn(segmentDir).filter((path) => basename(path) === 'model.segment')
    mostSegments = Math.max(mostSegments, segments.length)
    if (cycle < cycles) await killLife(stage, life)
    else exit = await endLife(stage, life)
    onCycle(`ready after ${Math.round(life.readyMs)} ms${life.isAdopted ? ', adopted' : ''}`)
  }
  return {
    ...{ readyMs, adopted, mostSegments, exit },
    filesLeft: filesIn(segmentDir),
    workFoldersLeft: readdirSync(cacheDir).filter((name) => name.startsWith('.work-')),
  }
}

export function cyclesChecks(result: CyclesResult): Check[] {
  const { adopted, mostSegments, exit, filesLeft, workFoldersLeft, readyMs } = result
  const list = (names: readonly string[]) =>
    names.length === 0 ? '0' : `${names.length}: ${names.join(', ')}`
  const kills = readyMs.length - 1
  return [
    {
      claim: 'files left in the segment folder after the clean stop',
      bar: '0',
      got: list(filesLeft),
      isMet: filesLeft.length === 0,
    },
    {
      claim: 'work folders left in the cache',
      bar: '0',
      got: list(workFoldersLeft),
      isMet: workFoldersLeft.length === 0,
    },
    {
      claim: 'segments in the folder while one server lives, at most',
      bar: '1',
      got: String(mostSegments),
      isMet: mostSegments === 1,
    },
    {
      claim: 'starts that adopted the segment of the killed server',
      bar: `${kills}, all but the first`,
      got: String(adopted),
      isMet: adopted === kills,
    },
    { claim: 'exit of the last server', bar: 'code 0', got: exit, isMet: exit === 'code 0' },
  ]
}
