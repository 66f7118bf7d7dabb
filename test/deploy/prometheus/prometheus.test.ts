import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parse } from 'yaml'
import * as z from 'zod'
import { cgroupMemoryLimit } from '../../../src/process/memory.js'
import { addModel, slowModel, writeModel } from '../../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'
import { runTool, testWithTools } from '../../helpers/tools.js'
import { until } from '../../helpers/waiting.js'
import { LivePrometheus } from './live-prometheus.js'

const FOLDER = join(PROJECT_ROOT, 'deploy', 'prometheus')
const COMPONENTS = join(PROJECT_ROOT, 'deploy', 'kubernetes', 'components')

const Dashboard = z.object({
  panels: z.array(
    z.looseObject({ title: z.string(), targets: z.array(z.looseObject({ expr: z.string() })).min(1) }),
  ),
  templating: z.object({
    list: z.array(z.looseObject({ name: z.string(), definition: z.string().optional() })),
  }),
})

function readDashboard() {
  return Dashboard.parse(JSON.parse(readFileSync(join(FOLDER, 'grafana-dashboard.json'), 'utf8')))
}

function readYaml(...path: string[]) {
  return parse(readFileSync(join(...path), 'utf8'))
}

const LABELS = { namespace: 'default', pod: 'onecopy-0' }
/** Every request has one row, except these. */
const ROWS = 3

async function ask(url: string, model: string, input: object): Promise<number> {
  const body = JSON.stringify({ inputs: [input] })
  const response = await fetch(`${url}/v2/models/${model}/infer`, { method: 'POST', body })
  await response.arrayBuffer()
  return response.status
}

const addInput = (rows: number) => ({
  ...{ name: 'x', datatype: 'FP32', shape: [rows, 2] },
  data: Array.from({ length: rows * 2 }, () => 1),
})
const slowInput = (iterations: number) => ({
  name: 'iterations',
  datatype: 'INT64',
  shape: [],
  data: [iterations],
})

function firstChildOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').split(' ')[0])
}

async function startModels(t: ExecutionContext, ...args: string[]) {
  const models = temporaryFolder(t)
  writeModel(models, 'add', addModel())
  writeModel(models, 'slow', slowModel())
  return await startServer(t, { models, args })
}

test('the rules for the Prometheus Operator equal those of deploy/prometheus', (t) => {
  const { groups } = readYaml(FOLDER, 'rules.yaml')
  t.deepEqual(readYaml(COMPONENTS, 'pod-monitor', 'prometheus-rule.yaml').spec, { groups })
})

testWithTools('rules and configuration are valid, and the rules pass their tests', ['promtool'], (t) => {
  for (const args of [
    ['check', 'rules', 'rules.yaml'],
    ['check', 'config', 'prometheus.yaml'],
    ['test', 'rules', 'rules.test.yaml'],
  ]) {
    const { code, output } = runTool('promtool', args, { cwd: FOLDER })
    t.is(code, 0, output)
  }
})

testWithTools('every alert has a test in which it fires', ['promtool'], (t) => {
  const fires = readYaml(FOLDER, 'rules.test.yaml').tests.flatMap(
    (one: { alert_rule_test?: { alertname: string; exp_alerts?: unknown[] }[] }) =>
      (one.alert_rule_test ?? [])
        .filter(({ exp_alerts }) => exp_alerts !== undefined)
        .map(({ alertname }) => alertname),
  )
  for (const group of readYaml(FOLDER, 'rules.yaml').groups)
    for (const { alert } of group.rules) if (alert !== undefined) t.true(fires.includes(alert), alert)
})

testWithTools('metric names follow the conventions', ['promtool'], async (t) => {
  const { server, url, adminUrl } = await startModels(t, '--workers', '1')
  t.is(await ask(url, 'add', addInput(1)), 200)
  t.is(await ask(url, 'none', addInput(1)), 404)
  const input = await (await fetch(`${adminUrl}/metrics`)).text()
  t.deepEqual(runTool('promtool', ['check', 'metrics'], { input }), { code: 0, output: '' })
  t.false(input.includes('nv_inference'))
  await stopCleanly(t, server)
})

/** The query of Grafana with everything selected. */
function asAsked(expression: string): string {
  return expression.replaceAll('$__rate_interval', '5s').replaceAll(/\$(job|instance|model)/g, '.*')
}

testWithTools(
  'a real Prometheus has the numbers of the clients; queries of dashboard, autoscalers and aliases return data',
  ['prometheus'],
  async (t) => {
    const { server, url, adminUrl } = await startModels(t, '--workers', '2', '--metrics-aliases', 'triton')
    const prometheus = await LivePrometheus.start(t, { target: new URL(adminUrl).host, labels: LABELS })
    await until('a first scrape', async () => (await prometheus.value('onecopy_workers_ready')) === 2)
    process.kill(firstChildOf(server.process.pid as number), 'SIGKILL')
    await until('its exit and its replacement to be scraped', async () => {
      const exits = await prometheus.value('onecopy_worker_exits_total{reason="SIGKILL"}')
      return exits === 1 && (await prometheus.value('onecopy_workers_ready')) === 2
    })

    const seen = { success: 0, client_error: 0 }
    let rows = 0
    const client = async (requests: number) => {
      for (let i = 0; i < requests; i++) {
        const count = i % 10 === 0 ? ROWS : 1
        if ((await ask(url, 'add', i % 25 === 24 ? slowInput(1) : addInput(count))) === 200) {
          seen.success++
          rows += count
        } else seen.client_error++
      }
    }
    await Promise.all(Array.from({ length: 8 }, () => client(150)))
    const counts = async (outcome: string) =>
      await prometheus.value(`sum(onecopy_requests_total{model="add",outcome="${outcome}"})`)
    await until('every request to be scraped', async () => (await counts('success')) === seen.success)
    t.is(seen.success + seen.client_error, 8 * 150)
    t.is(await counts('client_error'), seen.client_error)
    t.is(await prometheus.value('sum(onecopy_request_duration_seconds_count{model="add"})'), 8 * 150)
    t.is(await prometheus.value('sum(onecopy_batch_size_sum{model="add"})'), rows)

    t.is(await prometheus.value('nv_inference_request_success{model="add"}'), seen.success)
    t.is(await prometheus.value('sum(nv_inference_request_failure{model="add"})'), seen.client_error)
    t.is(await prometheus.value('nv_inference_count{model="add"}'), rows)
    t.true(((await prometheus.value('nv_inference_exec_count{model="add"}')) ?? 0) <= seen.success)
    const meanUs =
      'nv_inference_request_duration_us{model="add"} / (1e6 * sum without (outcome) (onecopy_request_duration_seconds_sum{model="add"}))'
    t.true(Math.abs(((await prometheus.value(meanUs)) ?? 0) - 1) < 1e-3)

    const waiting = new AbortController()
    const body = JSON.stringify({ inputs: [slowInput(100_000)] })
    // Two requests run, the others are queued.
    const slow = Array.from({ length: 8 }, () =>
      fetch(`${url}/v2/models/slow/infer`, { method: 'POST', body, signal: waiting.signal }).catch(
        () => null,
      ),
    )
    const adapter = readYaml(COMPONENTS, 'hpa', 'adapter-rules.yaml')[0].metricsQuery as string
    const queries = {
      adapter: adapter
        .replaceAll('<<.Series>>', 'onecopy_queue_depth')
        .replaceAll('<<.LabelMatchers>>', 'namespace="default",pod=~"onecopy-0"')
        .replaceAll('<<.GroupBy>>', 'pod'),
      keda: readYaml(COMPONENTS, 'keda', 'scaled-object.yaml').spec.triggers[0].metadata.query as string,
      depth: 'onecopy_queue_depth',
    }
    await until('the queue to be scraped', async () => (await prometheus.value(queries.depth)) === 6)
    for (const query of [queries.adapter, queries.keda]) {
      t.true(query.includes('[1m]'), query)
      // An average over a minute rises slowly; over the last moments it shows the whole queue.
      const mean = (await prometheus.value(query)) ?? 0
      t.true(mean > 0 && mean <= 6, `${query}: ${mean}`)
      const latest = query.replace('[1m]', '[1s]')
      await until(`${latest} to equal the queue`, async () => (await prometheus.value(latest)) === 6)
    }

    for (const { title, targets } of readDashboard().panels) {
      for (const { expr } of targets) {
        const isThere = !expr.includes('onecopy_memory_limit_bytes') || cgroupMemoryLimit() !== null
        const samples = await prometheus.query(asAsked(expr))
        t.is(samples.length > 0, isThere, `${title}: ${expr}`)
      }
    }
    for (const { definition } of readDashboard().templating.list) {
      if (definition === undefined) continue
      const [, series = '', label = ''] = definition.match(/^label_values\((.*), (\w+)\)$/) ?? []
      const samples = await prometheus.query(asAsked(series))
      t.true(
        samples.some(({ labels }) => labels[label] !== undefined),
        definition,
      )
    }
    const scraped = await (await fetch(`${adminUrl}/metrics`)).text()
    const rules = readFileSync(join(FOLDER, 'rules.yaml'), 'utf8').replace(/^ *(- record|- alert|#).*$/gm, '')
    for (const [name] of rules.matchAll(/\bonecopy_\w+/g)) {
      const isThere = name !== 'onecopy_memory_limit_bytes' || cgroupMemoryLimit() !== null
      t.is(new RegExp(`^${name}[{ ]`, 'm').test(scraped), isThere, `${name} in a rule`)
    }
    waiting.abort()
    await Promise.all(slow)
    t.is((await server.stop('SIGTERM')).signal, null)
  },
)
