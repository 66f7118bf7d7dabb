/**
 * Time to the first output of one process that attaches, or that creates a session from the model file.
 */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { untilReleased } from '../harness/footprint.js'
import { leadCell } from '../harness/lead.js'
import { COMPILED_ROOT } from '../harness/paths.js'
import { createProgress } from '../harness/progress.js'
import type { BenchReport } from '../harness/report.js'
import { orderOf } from '../harness/rounds.js'
import { startOnecopy } from '../harness/servers.js'
import { Stage } from '../harness/stage.js'
import { formatMb, formatSpread, spread } from '../harness/statistics.js'
import { findSubject, type Subject } from '../models/subject.js'

const WAYS = ['attach', 'kept', 'create'] as const
type Way = (typeof WAYS)[number]
const WAY_NAMES: Readonly<Record<Way, string>> = {
  attach: 'attach, raw weights released',
  kept: 'attach, --raw-weights keep',
  create: 'InferenceSession.create(path)',
}
const SCRIPT = join(COMPILED_ROOT, 'bench', 'variants', 'first-answer.js')

async function firstAnswerMs(way: Way, model: Subject, segmentDir: string): Promise<number> {
  const [[input] = []] = model.inputs(1)
  if (input === undefined) throw new Error('expected a model with an input')
  const target = [model.name, model.path, segmentDir, input.name, String(input.data.length)]
  const args = [SCRIPT, way === 'create' ? way : 'attach', ...target]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  return Number(stdout)
}

export async function firstAnswerReport(
  modelName: string,
  { rounds }: { readonly rounds: number },
): Promise<BenchReport> {
  await using stage = new Stage()
  const model = await findSubject(modelName)
  const owner = await startOnecopy({ stage, model, workers: 1 })
  const keeper = await startOnecopy({ stage, model, workers: 1, flags: ['--raw-weights', 'keep'] })
  using progress = createProgress(`attach ${model.name}`, rounds * WAYS.length)
  const times: Record<Way, number[]> = { attach: [], kept: [], create: [] }
  for (let round = 0; round < rounds; round++)
    for (const way of orderOf(WAYS, round)) {
      progress.step(`${WAY_NAMES[way]}: round ${round + 1}`)
      // Each attach restores the raw weights, which are released again between rounds.
      if (way === 'attach') await untilReleased(owner.segmentDir)
      times[way].push(await firstAnswerMs(way, model, (way === 'kept' ? keeper : owner).segmentDir ?? ''))
    }
  const lead = (way: Way) =>
    way === 'create' ? '-' : leadCell({ onecopy: times[way], other: times.create, better: 'lower' })
  return {
    name: `attach-first-${model.name}`,
    title: `${model.name} (${formatMb(model.bytes)} MB): time to the first output of one process`,
    table: {
      head: ['', 'first output after, ms', 'compared with create'],
      rows: WAYS.map((way) => [WAY_NAMES[way], formatSpread(spread(times[way])), lead(way)]),
    },
    checks: [],
    notes: ['libraries are loaded before the clock starts', 'each attach restores released raw weights'],
    charts: [],
    setting: { model, rounds },
    raw: times,
  }
}
