/**
 * Time to the first output of one process that attaches, or that creates a session from the model
 * file.
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

const METHODS = ['attach', 'kept', 'create'] as const
type Method = (typeof METHODS)[number]
const METHOD_NAMES: Readonly<Record<Method, string>> = {
  attach: 'attach, raw weights released',
  kept: 'attach, --raw-weights keep',
  create: 'InferenceSession.create(path)',
}
const SCRIPT = join(COMPILED_ROOT, 'bench', 'variants', 'first-answer.js')

async function firstAnswerMs(method: Method, model: Subject, segmentDir: string): Promise<number> {
  const [[input] = []] = model.inputs(1)
  if (input === undefined) throw new Error('expected a model with an input')
  const target = [model.name, model.path, segmentDir, input.name, String(input.data.length)]
  const args = [SCRIPT, method === 'create' ? method : 'attach', ...target]
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
  using progress = createProgress(`attach ${model.name}`, rounds * METHODS.length)
  const times: Record<Method, number[]> = { attach: [], kept: [], create: [] }
  for (let round = 0; round < rounds; round++)
    for (const method of orderOf(METHODS, round)) {
      progress.step(`${METHOD_NAMES[method]}: round ${round + 1}`)
      // Each attach restores the raw weights, which are released again between rounds.
      if (method === 'attach') await untilReleased(owner.segmentDir)
      times[method].push(
        await firstAnswerMs(method, model, (method === 'kept' ? keeper : owner).segmentDir ?? ''),
      )
    }
  const lead = (method: Method) =>
    method === 'create' ? '-' : leadCell({ onecopy: times[method], other: times.create, better: 'lower' })
  return {
    name: `attach-first-${model.name}`,
    title: `${model.name} (${formatMb(model.bytes)} MB): time to the first output of one process`,
    table: {
      head: ['', 'first output after, ms', 'compared with create'],
      rows: METHODS.map((method) => [
        METHOD_NAMES[method],
        formatSpread(spread(times[method])),
        lead(method),
      ]),
    },
    checks: [],
    notes: ['libraries are loaded before the clock starts', 'each attach restores released raw weights'],
    charts: [],
    setting: { model, rounds },
    raw: times,
  }
}
