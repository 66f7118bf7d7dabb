import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { MorganOptionsSchema } from '../../src/transform/morgan.js'
import { TransformRunner } from '../../src/transform/runner.js'
import { runInProcess } from '../helpers/in-process.js'
import { spawnServer, startServer, stopCleanly } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { untilSome, withinDeadline } from '../helpers/waiting.js'
import { LOGP_MODEL, makeBundle, molecules } from './helpers.js'

/** From models/logp/README.md, computed with RDKit and NumPy in Python. */
const PHENOL = 1.4048
const IBUPROFEN = 2.836
const SMILES = ['Oc1ccccc1', 'CC(C)Cc1ccc(cc1)C(C)C(=O)O', 'not a molecule']

async function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return await fetch(url, { method: 'POST', body: JSON.stringify(body), headers })
}

async function json(response: Response): Promise<unknown> {
  return await response.json()
}

function near(t: ExecutionContext, got: unknown, expected: number): void {
  t.true(typeof got === 'number' && Math.abs(got - expected) < 1e-3, `${got}, expected ${expected}`)
}

test.serial(
  'npm start answers POST /run: every orient, both body formats, nulls for an invalid molecule',
  async (t) => {
    const { server, url } = await startServer(t, { args: ['--workers', '2'] })
    const run = (orient: string, body: unknown = SMILES) =>
      post(`${url}/run?orient=${orient}`, body).then(json)

    const values = (await run('values')) as number[][]
    near(t, values[0]?.[0], PHENOL)
    near(t, values[1]?.[0], IBUPROFEN)
    t.deepEqual(values[2], [null])
    const [[phenol], [ibuprofen]] = values as [[number], [number], unknown]
    t.deepEqual(await run('records'), [{ logp: phenol }, { logp: ibuprofen }, { logp: null }])
    t.deepEqual(await post(`${url}/run`, SMILES).then(json), await run('records'))
    t.deepEqual(await run('split'), { columns: ['logp'], index: SMILES, data: values })
    const byInput = Object.fromEntries(SMILES.map((smiles, i) => [smiles, { logp: values[i]?.[0] }]))
    t.deepEqual(await run('index'), byInput)
    t.deepEqual(await run('columns'), {
      logp: Object.fromEntries(SMILES.map((smiles, i) => [smiles, values[i]?.[0]])),
    })
    const keyed = SMILES.map((input, i) => ({ key: `k${i}`, input }))
    t.deepEqual(await run('values', keyed), values)

    const heavy = await post(`${url}/run?output_type=heavy`, SMILES)
    t.is(heavy.headers.get('content-type'), 'application/octet-stream')
    t.regex(heavy.headers.get('content-disposition') ?? '', /result\.bin/)
    const bytes = Buffer.from(await heavy.arrayBuffer())
    const end = bytes.indexOf('\n') + 1
    t.deepEqual(JSON.parse(bytes.toString('utf8', 0, end)), { dims: ['logp'], shape: [3, 1], dtype: '<f4' })
    t.is(bytes.readFloatLE(end), phenol)
    t.true(Number.isNaN(bytes.readFloatLE(end + 8)))

    const page = readFileSync(join(PROJECT_ROOT, 'docs', 'ersilia.md'), 'utf8')
    const [, body = '', path = ''] = page.match(/^curl -d '(\[.*\])' localhost:8080(\/run)$/m) ?? []
    t.is(((await post(`${url}${path}`, JSON.parse(body)).then(json)) as unknown[]).length, 2)
    await stopCleanly(t, server)
  },
)

test.serial('a bundle describes itself like the server of ersilia-pack', async (t) => {
  const { server, url } = await startServer(t, {
    args: ['--bundle', makeBundle(t), '--workers', '2'],
  })
  const get = async (path: string) => await json(await fetch(`${url}${path}`))
  const inputs = (await get('/run/example/input')) as string[]
  t.deepEqual(inputs.slice(0, 2), SMILES.slice(0, 2))
  const outputs = (await get('/run/example/output?orient=values')) as number[][]
  t.deepEqual(outputs.slice(0, 2), [[PHENOL], [IBUPROFEN]])
  t.deepEqual(Object.keys((await get('/run/example/output?orient=index')) as object), inputs)
  t.deepEqual(await get('/run/columns/input'), ['smiles'])
  t.deepEqual(await get('/run/columns/output'), ['logp'])
  t.deepEqual(await get('/'), { eos9zzz: 'test-logp' })
  t.like((await get('/card')) as object, { Identifier: 'eos9zzz', 'Output Type': ['Float'] })
  for (const [field, value] of [
    ['Identifier', 'eos9zzz'],
    ['Input', ['Compound']],
  ] as const)
    t.deepEqual(await get(`/card/${field}`), { [field]: value })
  t.like((await get('/card')) as object, { 'Input Shape': 'Single', 'Output Shape': 'Single' })
  // An unknown card field, an unknown path and a wrong method get the error responses of FastAPI.
  const missing = await fetch(`${url}/card/nope`)
  t.is(missing.status, 422)
  t.like((await json(missing)) as object, { detail: [{ loc: ['path', 'field'] }] })
  const unknown = await fetch(`${url}/nothing`)
  t.deepEqual([unknown.status, await json(unknown)], [404, { detail: 'Not Found' }])
  const method = await fetch(`${url}/run`)
  t.deepEqual([method.status, await json(method)], [405, { detail: 'Method Not Allowed' }])
  t.like(await json(await fetch(`${url}/v2/nothing`)), { error: 'no route GET "/v2/nothing"' })
  const redoc = await fetch(`${url}/redoc`, { redirect: 'manual' })
  t.deepEqual([redoc.status, redoc.headers.get('location')], [302, 'docs'])
  const [status] = (await get('/models/status')) as { workers: { pid: number }[]; loadedAtStartup: boolean }[]
  t.true(status?.loadedAtStartup)
  t.is(status?.workers.length, 2)
  for (const { pid } of status?.workers ?? []) t.notThrows(() => process.kill(pid, 0))
  t.like((await get('/healthz')) as object, { breaker: { state: 'closed', failures: 0, reset_timeout: 60 } })
  t.is((await fetch(`${url}/docs`)).status, 200)
  const { paths } = (await (await fetch(`${url}/openapi.json`)).json()) as { paths: Record<string, unknown> }
  t.true('/run' in paths)
  // The Open Inference Protocol is served too, under the Identifier.
  t.like((await get('/v2/models/eos9zzz')) as object, { name: 'eos9zzz' })
  await stopCleanly(t, server)
})

test.serial(
  'invalid requests get 422 with the reason, and the server answers the next request',
  async (t) => {
    const { server, url } = await startServer(t, { args: ['--workers', '1'] })
    for (const [path, body, reason] of [
      ['/run', '[]', /Data is empty/],
      ['/run', '{"a":1}', /expected a list of molecules, got object/],
      ['/run', '["C"', /not JSON/],
      ['/run', '["C", 5]', /item 1: expected text as in the items before, got number/],
      ['/run', '[{"smiles":"C"}]', /item 0/],
      ['/run', '[{"input":"C"}]', /item 0: expected text or {"key": text, "input": text}/],
      ['/run', '["C", {"key":"a","input":"C"}]', /item 1: expected text as/],
      ['/run', '[{"key":"a","input":"C"}, "C"]', /item 1: expected {"key"/],
      ['/run?orient=table', '["C"]', /orient: expected one of records/],
      ['/run?min_workers=0', '["C"]', /min_workers: expected an integer from 1/],
      ['/run?fetch_cache=perhaps', '["C"]', /fetch_cache: expected true or false/],
      ['/job/submit', '[]', /Data is empty/],
    ] as const) {
      const response = await fetch(`${url}${path}`, { method: 'POST', body })
      t.is(response.status, 422, `${path} ${body}`)
      const { detail } = (await json(response)) as { detail: string | { loc: unknown[]; msg: string }[] }
      const text =
        typeof detail === 'string' ? detail : detail.map(({ loc, msg }) => [...loc, msg].join(': ')).join()
      t.regex(text, reason)
      t.is(response.headers.get('x-error-code'), 'INPUT_INVALID')
      t.truthy(response.headers.get('x-request-id'))
    }
    const hostile = ['C'.repeat(10 * 1024 * 1024), '', 'C'.repeat(501), '['.repeat(400), 'Oc1ccccc1']
    const rows = (await post(`${url}/run?orient=values`, hostile).then(json)) as (number | null)[][]
    t.deepEqual(rows.slice(0, 4), [[null], [null], [null], [null]])
    near(t, rows[4]?.[0], PHENOL)
    t.is((await fetch(`${url}/run`)).status, 405)
    await stopCleanly(t, server)
  },
)

test.serial(
  '5,000 molecules have the same results as in-process runs on the same fingerprints',
  async (t) => {
    const { server, url } = await startServer(t, { args: ['--workers', '2'] })
    const smiles = molecules(5000)
    const got = (await post(`${url}/run?orient=values`, smiles).then(json)) as number[][]
    t.is(got.length, smiles.length)
    const options = MorganOptionsSchema.parse({ radius: 1, counts: 'simulated' })
    await using runner = await TransformRunner.open({ choice: { kind: 'morgan', options } })
    let largest = 0
    for (let from = 0; from < smiles.length; from += 500) {
      const { accepted, rows } = await runner.encode(smiles.slice(from, from + 500))
      t.true(accepted.every((one) => one === 1))
      const data = rows[0] as Float32Array
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      const { outputs } = await runInProcess(LOGP_MODEL, [
        { name: 'fingerprint', datatype: 'FP32', shape: [500, 2048], bytes },
      ])
      const expected = new Float32Array(Uint8Array.from(outputs[0]?.bytes ?? []).buffer)
      for (const [i, value] of expected.entries())
        largest = Math.max(largest, Math.abs(value - (got[from + i]?.[0] as number)))
    }
    // The summation order of the kernels depends on the number of rows in a run.
    t.true(largest < 1e-5, `largest difference ${largest}`)
    await stopCleanly(t, server)
  },
)

test.serial('every worker answers for a job, and unknown jobs are 404', async (t) => {
  const { server, url } = await startServer(t, { args: ['--workers', '2'] })
  const submitted = (await post(`${url}/job/submit?orient=values`, SMILES).then(json)) as {
    job_id: string
    message: string
  }
  t.is(submitted.message, 'Job submitted successfully.')
  const { job_id } = submitted
  await untilSome('the job to be completed', async () => {
    const { status } = (await json(await fetch(`${url}/job/status/${job_id}`))) as { status: string }
    return status === 'completed' ? status : null
  })
  const expected = await post(`${url}/run?orient=values`, SMILES).then(json)
  for (let i = 0; i < 8; i++) {
    // Each connection may reach a different worker.
    const response = await fetch(`${url}/job/result/${job_id}`, { headers: { connection: 'close' } })
    t.deepEqual(await json(response), expected)
  }
  for (const id of ['no-such-job', '../resident', '00000000-0000-0000-0000-000000000000']) {
    const response = await fetch(`${url}/job/status/${encodeURIComponent(id)}`)
    t.is(response.status, 404, id)
    t.deepEqual(await json(response), { detail: 'Job not found' })
  }
  await stopCleanly(t, server)
})

test.serial('a job whose worker died is failed, and the replacement worker reports it', async (t) => {
  const { server, url } = await startServer(t, { args: ['--workers', '1'] })
  const { job_id } = (await post(`${url}/job/submit`, molecules(50_000)).then(json)) as { job_id: string }
  const status = async () => {
    const response = await fetch(`${url}/job/status/${job_id}`, { headers: { connection: 'close' } })
    return ((await json(response)) as { status: string }).status
  }
  t.is(await status(), 'pending')
  const unfinished = await fetch(`${url}/job/result/${job_id}`, { headers: { connection: 'close' } })
  t.deepEqual(await json(unfinished), { job_id, status: 'pending', result: null })
  const [{ workers }] = (await json(await fetch(`${url}/models/status`))) as [{ workers: { pid: number }[] }]
  process.kill(workers[0]?.pid ?? 0, 'SIGKILL')
  await untilSome('the replacement to report it', async () =>
    (await status().catch(() => null)) === 'failed' ? true : null,
  )
  await stopCleanly(t, server)
})

test.serial(
  'molecules that cause a trap in the featurizer give rows of nulls and affect no others',
  async (t) => {
    const featurizer = { kind: 'morgan', radius: 1, counts: 'simulated', max_characters: 10_000 }
    const bundle = makeBundle(t, { manifest: { featurizer } })
    const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
    const traps = ['C'.repeat(5000), 'c1ccccc1'.repeat(200), `${'C('.repeat(3000)}C${')'.repeat(3000)}`]
    const run = async () =>
      (await post(
        `${url}/run?orient=values`,
        traps.flatMap((trap) => [trap, 'Oc1ccccc1']),
      ).then(json)) as (number | null)[][]
    for (const rows of await Promise.all([run(), run(), run()])) {
      for (const [i, [value]] of rows.entries()) {
        if (i % 2 === 0) t.is(value, null)
        else near(t, value, PHENOL)
      }
    }
    const [line] = server.log.filter(({ msg }) => msg.startsWith('a molecule was rejected'))
    t.regex(String(line?.reason), /was reopened/)
    await stopCleanly(t, server)
  },
)

test.serial('without Redis the cache flags change no result', async (t) => {
  const { server, url } = await startServer(t, { args: ['--workers', '1'] })
  const run = async (query: string) =>
    (await post(`${url}/run?orient=values&${query}`, SMILES).then(json)) as (number | null)[][]
  const computed = await run('save_cache=true')
  near(t, computed[0]?.[0], PHENOL)
  for (const query of ['fetch_cache=true&cache_only=true', 'cache_only=true', 'fetch_cache=true'])
    t.deepEqual(await run(query), computed, `${query}: without Redis everything is computed`)
  t.deepEqual(await run('fetch_cache=true&save_cache=true'), computed)
  t.deepEqual(await run('output_type=light'), computed, 'an unknown form is treated as simple')
  await stopCleanly(t, server)
})

test.serial('a model with variable outputs bypasses the cache', async (t) => {
  const bundle = makeBundle(t, { card: { 'Output Consistency': 'Variable' } })
  const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  const query = 'orient=values&fetch_cache=true&cache_only=true'
  const rows = (await post(`${url}/run?${query}`, SMILES).then(json)) as (number | null)[][]
  near(t, rows[0]?.[0], PHENOL)
  await stopCleanly(t, server)
})

test.serial('text and integer columns have the declared types', async (t) => {
  const columns = 'name,type,direction,description\nlogp,integer,high,x\n'
  const examples = { 'columns/run_columns.csv': columns, 'examples/run_output.csv': 'other\n1\n' }
  const integer = makeBundle(t, { card: { 'Output Type': ['Integer'] }, files: examples })
  const first = await startServer(t, { args: ['--bundle', integer, '--workers', '1'] })
  t.deepEqual(await post(`${first.url}/run?orient=values`, SMILES).then(json), [[1], [2], [null]])
  await stopCleanly(t, first.server)

  const mixed = makeBundle(t, {
    card: { 'Output Type': ['Float', 'Integer'] },
    manifest: { output: { kind: 'values', decimals: 0 } },
    files: { 'examples/run_output.csv': 'other\n1\n' },
  })
  const second = await startServer(t, { args: ['--bundle', mixed, '--workers', '1'] })
  t.deepEqual(await post(`${second.url}/run?orient=values`, SMILES).then(json), [['1.0'], ['3.0'], [null]])
  const heavy = await post(`${second.url}/run?output_type=heavy`, SMILES)
  t.is(heavy.status, 422)
  await stopCleanly(t, second.server)
})

test.serial('a bundle that does not reproduce its examples is not served', async (t) => {
  const files = { 'examples/run_output.csv': 'logp\n1.4048\n9\n' }
  const server = spawnServer(t, { args: ['--bundle', makeBundle(t, { files }), '--workers', '1'] })
  t.deepEqual(await withinDeadline('the server to end', server.exited), { code: 1, signal: null })
  const line = server.log.find(({ level }) => level === 'fatal')
  t.is(line?.code, 'EXAMPLES_NOT_REPRODUCED')
  t.regex(line?.msg ?? '', /example 2 .*column logp: run_output.csv has 9, the model returns 2\.83/)
  t.deepEqual(server.segments(), [])
})

test.serial('a bundle without a manifest is served by its run.sh, which the status shows', async (t) => {
  const script = [
    '#!/bin/bash',
    'test "$1/run.sh" -ef "$0" || exit 3',
    'test -d "$4/model" || exit 4',
    'test "$(head -1 "$2" | tr -d "\\r")" = input || exit 5',
    'if grep -q explode "$2"; then echo "it exploded" >&2; exit 7; fi',
    '(echo logp; tail -n +2 "$2" | while read -r line; do expr length "$line"; done) > "$3"',
  ].join('\n')
  const bundle = makeBundle(t, { manifest: null, files: { 'run.sh': script } })
  const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  const answered = await post(`${url}/run?orient=values`, ['CCO', 'CCCCC'])
  t.is(answered.status, 200)
  t.is(((await json(answered)) as number[][]).length, 2)
  const [status] = (await json(await fetch(`${url}/models/status`))) as { loadedAtStartup: boolean }[]
  t.false(status?.loadedAtStartup)
  for (let i = 0; i < 100; i++) {
    const failed = await post(`${url}/run`, ['explode'])
    t.is(failed.status, 500)
    t.regex(((await json(failed)) as { detail: string }).detail, /code 7: it exploded/)
  }
  const refused = await post(`${url}/run`, ['CCO'])
  t.is(refused.status, 503, 'the breaker is open after a hundred failures')
  t.is(refused.headers.get('x-error-code'), 'BREAKER_OPEN')
  t.true(Number(refused.headers.get('retry-after')) > 0)
  const health = (await json(await fetch(`${url}/healthz`))) as { breaker: { state: string } }
  t.is(health.breaker.state, 'open')
  await stopCleanly(t, server)
})
