/**
 * Compares Python processes for one prediction: with the resident model, or with a model that they
 * load.
 */
import { execFile, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { leadCell } from '../harness/lead.js'
import { PACKAGE_ROOT } from '../harness/paths.js'
import { createProgress } from '../harness/progress.js'
import type { BenchReport } from '../harness/report.js'
import { orderOf } from '../harness/rounds.js'
import { startOnecopy } from '../harness/servers.js'
import { Stage } from '../harness/stage.js'
import { formatMb, formatSpread, spread } from '../harness/statistics.js'
import { findSubject } from '../models/subject.js'

const METHODS = ['run', 'attach', 'load'] as const
type Method = (typeof METHODS)[number]
const METHOD_NAMES: Readonly<Record<Method, string>> = {
  run: 'onecopy.run, over the socket',
  attach: 'onecopy.attach',
  load: 'onnxruntime.InferenceSession(path)',
}
const SCRIPT = join(PACKAGE_ROOT, 'bench', 'variants', 'predict_once.py')

interface Options {
  readonly runs: number
  readonly python: string
}

export async function pythonReport(modelName: string, { runs, python }: Options): Promise<BenchReport> {
  const model = await findSubject(modelName)
  const title = `${model.name} (${formatMb(model.bytes)} MB): total time of a Python process for one prediction`
  const name = `attach-python-${model.name}`
  const empty = { name, title, checks: [], charts: [], setting: { model, runs } }
  if (spawnSync(python, ['-c', 'import numpy, onnxruntime']).status !== 0) {
    const notes = [`**skipped**, ${python} lacks numpy or onnxruntime (--python)`]
    return { ...empty, table: { head: ['', 'ms'], rows: [] }, notes, raw: null }
  }
  await using stage = new Stage()
  const { segmentDir } = await startOnecopy({ stage, model, workers: 1, flags: ['--raw-weights', 'keep'] })
  const [[input] = []] = model.inputs(1)
  if (input === undefined) throw new Error('expected a model with an input')
  const env = {
    ...process.env,
    ONECOPY_SEGMENT_DIR: segmentDir ?? '',
    PYTHONPATH: [join(PACKAGE_ROOT, 'src', 'python'), process.env.PYTHONPATH ?? ''].join(':'),
  }
  using progress = createProgress(`attach ${model.name}, Python`, runs + 1)
  const times: Record<Method, number[]> = { run: [], attach: [], load: [] }
  for (let round = 0; round <= runs; round++) {
    progress.step(`run ${round}`)
    for (const method of orderOf(METHODS, round)) {
      const startedMs = performance.now()
      const args = [SCRIPT, method, model.name, model.path, input.name, String(input.data.length)]
      await promisify(execFile)(python, args, { env })
      // The first of each fills the page cache.
      if (round > 0) times[method].push(performance.now() - startedMs)
    }
  }
  const lead = (method: Method) =>
    method === 'load' ? '-' : leadCell({ onecopy: times[method], other: times.load, better: 'lower' })
  return {
    ...empty,
    table: {
      head: ['', 'ms, median (min-max)', 'compared with loading'],
      rows: METHODS.map((method) => [
        METHOD_NAMES[method],
        formatSpread(spread(times[method])),
        lead(method),
      ]),
    },
    notes: ['each imports numpy; only the last two import onnxruntime'],
    raw: times,
  }
}
