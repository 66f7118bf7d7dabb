/**
 * Compares processes that attach to a running onecopy with processes that load the model: time to
 * the first output, requests/s and memory of a Koa cluster, and Python.
 */
import { firstAnswerReport } from './attach/first-answer.js'
import { memoryReport } from './attach/memory.js'
import { pythonReport } from './attach/python.js'
import { throughputReport } from './attach/throughput.js'
import { defineBench } from './harness/bench.js'
import { countOption, positiveOption, risingOption, textOption } from './harness/options.js'
import { modelsOption } from './models/subject.js'

export const attachBench = defineBench({
  name: 'attach',
  summary: 'Attaching compared with loading: time to the first output, requests/s, memory and Python.',
  choices: {
    word: 'PART',
    entries: [
      { name: 'first', title: 'time to the first output of one process' },
      { name: 'memory', title: 'private memory of the workers of a Koa cluster' },
      { name: 'requests', title: 'requests/s of a Koa cluster' },
      { name: 'python', title: 'a Python process for one prediction' },
    ],
  },
  options: {
    models: modelsOption({ default: '200MB,1GB', quick: '200MB' }),
    workers: risingOption({ help: 'Workers of each cluster', default: '1,4,8', quick: '2' }),
    connections: countOption({ help: 'Connections', default: '16', quick: '8' }),
    rounds: countOption({ help: 'Measurements of each, alternating', default: '5', quick: '2' }),
    seconds: positiveOption({ help: 'Duration of one measurement', default: '3', quick: '1' }),
    requests: countOption({
      help: 'Requests to each worker before memory is read',
      default: '60',
      quick: '16',
    }),
    runs: countOption({ help: 'Python processes of each kind, alternating', default: '20', quick: '3' }),
    python: textOption({ help: 'A Python with numpy and onnxruntime', default: 'python3' }),
  },
  failsWhen: 'an attached worker has over 40 MB more private memory than a bare one, or a request fails',
  reports: ({ models, ...options }, chosen) => {
    const parts = {
      first: firstAnswerReport,
      memory: memoryReport,
      requests: throughputReport,
      python: pythonReport,
    } as const
    return models.flatMap((model) =>
      Object.entries(parts)
        .filter(([part]) => chosen.length === 0 || chosen.includes(part))
        .map(
          ([, report]) =>
            () =>
              report(model, options),
        ),
    )
  },
})
