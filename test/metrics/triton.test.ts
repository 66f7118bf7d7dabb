import { join } from 'node:path'
import test from 'ava'
import { exposeModels } from '../../src/metrics/exposition.js'
import { StatsPage } from '../../src/metrics/page.js'
import { ModelRecorder } from '../../src/metrics/recorder.js'
import { MODEL_CELLS } from '../../src/metrics/series.js'
import { temporaryFolder } from '../helpers/server.js'

test("what is counted has Triton's names beside its own where that is asked for", async (t) => {
  const reference = { path: join(temporaryFolder(t), 'p'), slots: 2, cellsPerSlot: MODEL_CELLS }
  const page = await StatsPage.create(reference)
  const [first, second] = [new ModelRecorder(page.slot(0)), new ModelRecorder(page.slot(1))]
  for (const recorder of [first, second]) {
    recorder.countRequest('success', 2)
    recorder.observe('requestDuration', 0.002)
    recorder.observe('queueDuration', 0.0005)
  }
  first.countRequest('rejected', 0)
  first.countRequest('timeout', 0)
  second.countRequest('client_error', 0)
  second.observe('batchSize', 5)
  second.observe('computeInThread', 0.001)
  second.observe('computeOnLoop', 0.00025)
  const models = [
    { labels: { model: 'm', version: '3' }, page },
    { labels: { model: '(unknown)', version: '' }, page },
  ]
  const lines = (await exposeModels(models, 'triton')).split('\n').filter((line) => line.startsWith('nv_'))
  const labels = 'model="m",version="3"'
  t.deepEqual(lines, [
    `nv_inference_request_success{${labels}} 2`,
    `nv_inference_count{${labels}} 5`,
    `nv_inference_exec_count{${labels}} 1`,
    `nv_inference_request_duration_us{${labels}} 4000`,
    `nv_inference_queue_duration_us{${labels}} 1000`,
    `nv_inference_compute_infer_duration_us{${labels}} 1250`,
    `nv_inference_request_failure{${labels},reason="REJECTED"} 1`,
    `nv_inference_request_failure{${labels},reason="CANCELED"} 0`,
    `nv_inference_request_failure{${labels},reason="BACKEND"} 0`,
    `nv_inference_request_failure{${labels},reason="OTHER"} 2`,
  ])
  t.false((await exposeModels(models)).includes('nv_'))
})
