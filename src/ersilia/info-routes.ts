/** Routes with information about a bundle and its server. */
import { cpus, freemem, totalmem } from 'node:os'
import type Router from '@koa/router'
import type { Context, Next } from 'koa'
import { OnecopyError } from '../errors.js'
import type { Bundle } from './bundle.js'
import type { ErsiliaContext } from './context.js'
import type { CsvTable } from './csv.js'
import { jsonText, orientRows, type Row } from './orient.js'
import { InvalidInput, parseQuery } from './request.js'
import type { ErsiliaService } from './service.js'

/** Fields of the card that are available individually. */
const CARD_FIELDS = ['Identifier', 'Slug', 'Title', 'Description', 'Input', 'Task', 'Subtask']

/** CPU load since the last call and current memory use, in percent. */
function systemLoad(): () => { cpu: number; memory: number } {
  const times = () => {
    let idle = 0
    let all = 0
    for (const cpu of cpus()) {
      idle += cpu.times.idle
      all += cpu.times.user + cpu.times.nice + cpu.times.sys + cpu.times.irq + cpu.times.idle
    }
    return { idle, all }
  }
  let last = times()
  const percent = (share: number) => Math.round(share * 1000) / 10
  return () => {
    const now = times()
    const all = now.all - last.all
    const cpu = all === 0 ? 0 : 1 - (now.idle - last.idle) / all
    last = now
    return { cpu: percent(cpu), memory: percent(1 - freemem() / totalmem()) }
  }
}

/** What a packed card says and a card that was not packed leaves out; what a card says itself is left as it is. */
function shapesOf({ columns, outputType }: Bundle): Record<string, unknown> {
  return {
    'Input Shape': 'Single',
    'Output Shape': columns.length === 1 ? 'Single' : 'List',
    'Output Type': [`${outputType.slice(0, 1).toUpperCase()}${outputType.slice(1)}`],
  }
}

function exampleRows({ header, lines }: CsvTable, columns: readonly string[]): Row[] {
  return lines.map((line) => columns.map((column) => line[header.indexOf(column)] ?? null))
}

/** As JSON text. */
function exampleOutput({ bundle }: ErsiliaService, query: ReturnType<typeof parseQuery>): string {
  const { exampleOutputs, exampleInputs: index, columns, outputType } = bundle
  if (exampleOutputs === null) throw new OnecopyError('ROUTE_NOT_FOUND', 'the bundle has no example output')
  const rows = exampleRows(exampleOutputs, columns)
  return jsonText(orientRows({ rows, columns, index, orient: query.orient, outputType }), rows)
}

async function modelStatus(service: ErsiliaService, version: string | undefined) {
  const { bundle, isResident, workers: notes } = service
  const workers = await notes.list()
  return [
    {
      modelName: bundle.card.Identifier,
      modelVersion: version ?? '1',
      runtime: isResident ? 'onnxruntime' : 'run.sh',
      minWorkers: workers.length,
      maxWorkers: workers.length,
      maxBatchSize: bundle.manifest?.batchSize ?? 1,
      maxBatchDelay: 0,
      loadedAtStartup: isResident,
      workers,
    },
  ]
}

export function infoRoutes(
  router: Router,
  context: ErsiliaContext,
  detailErrors: (ctx: Context, next: Next) => Promise<void>,
): void {
  const load = systemLoad()
  const get = (path: string, work: (service: ErsiliaService, ctx: Context) => unknown) =>
    router.get(path, detailErrors, async (ctx) => {
      ctx.body = await work(await context.service(), ctx)
    })
  get('/', ({ bundle }) => ({ [bundle.card.Identifier]: bundle.card.Slug }))
  get('/run/example/input', ({ bundle }) => bundle.exampleInputs)
  get('/run/example/output', (service, ctx) => {
    ctx.set('Content-Type', 'application/json')
    return exampleOutput(service, parseQuery(ctx.query))
  })
  get('/run/columns/input', ({ bundle }) => bundle.inputHeader)
  get('/run/columns/output', ({ bundle }) => bundle.exampleOutputs?.header ?? bundle.columns)
  get('/card', ({ bundle }) => ({ ...shapesOf(bundle), ...bundle.card }))
  get('/card/:field', ({ bundle }, ctx) => {
    const { field } = ctx.params as { field: string }
    if (!CARD_FIELDS.includes(field)) {
      const msg = `Input should be ${CARD_FIELDS.map((one) => `'${one}'`).join(', ')}`
      throw new InvalidInput([{ type: 'enum', loc: ['path', 'field'], msg }])
    }
    const value = bundle.card[field]
    if (value !== undefined) return { [field]: value }
    throw new OnecopyError('ROUTE_NOT_FOUND', `Field ${field} not found in metadata`)
  })
  // One page for both: theirs needs scripts from elsewhere.
  router.get('/redoc', (ctx) => {
    ctx.redirect('docs')
  })
  get('/models/status', (service) => modelStatus(service, context.model()?.version))
  get('/healthz', ({ breaker }) => {
    const { state, failures, lastFailure, resetTimeoutSeconds, nextReset } = breaker.state
    return {
      breaker: {
        state,
        failures,
        last_failure: lastFailure,
        reset_timeout: resetTimeoutSeconds,
        next_reset: nextReset,
      },
      system: load(),
    }
  })
}
