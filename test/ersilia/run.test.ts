import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { decodeOutputs, encodeInputs } from '../../src/ersilia/binary.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { until } from '../helpers/waiting.js'
import { LOGP_BUNDLE, LOGP_MODEL, makeBundle, molecules } from './helpers.js'
import { load } from './resident.js'

const MAIN = join(PROJECT_ROOT, 'dist', 'cluster', 'main.js')

function run(segmentDir: string, args: readonly string[]) {
  return runCommand(['run', ...args, '--segment-dir', segmentDir])
}

function linesOf(path: string): string[] {
  return readFileSync(path, 'utf8').trim().split('\n')
}

function writeInput(t: ExecutionContext, smiles: readonly string[]): string {
  const path = join(temporaryFolder(t), 'input.csv')
  writeFileSync(path, `smiles\n${smiles.join('\n')}\n`)
  return path
}

const SMILES = ['Oc1ccccc1', 'CC(C)Cc1ccc(cc1)C(C)C(=O)O', 'nonsense', 'CCO']

test.serial('the socket, the segment and a cold load give the same rows', async (t) => {
  const resident = await load(t, [LOGP_BUNDLE])
  const { segmentDir } = resident
  const input = writeInput(t, SMILES)
  const folder = temporaryFolder(t)
  for (const via of ['socket', 'segment', 'cold']) {
    const output = join(folder, `${via}.csv`)
    const { code, stderr } = run(segmentDir, [
      LOGP_BUNDLE,
      '--input',
      input,
      '--output',
      output,
      '--via',
      via,
    ])
    t.is(code, 0, stderr)
    t.is(stderr, 'onecopy: warning: 1 of 4 rows have no result\n')
    const [header, phenol, ibuprofen, nothing, ethanol] = linesOf(output)
    t.is(header, 'logp')
    t.is(Number(phenol).toFixed(4), '1.4048')
    t.is(Number(ibuprofen).toFixed(4), '2.8360')
    t.is(nothing, '""')
    t.not(ethanol, '')
    t.deepEqual(
      readdirSync(folder).filter((name) => name.endsWith('.tmp')),
      [],
    )
  }
  // By name, Slug and framework folder, and from one stream to the other.
  for (const target of ['eos0lgp', 'crippen-logp', join(LOGP_BUNDLE, 'model', 'framework')]) {
    const { code, stdout } = run(segmentDir, [target, '--input', input, '--output', '-', '--via', 'socket'])
    t.is(code, 0)
    t.is(stdout.split('\n').length, 6)
  }
  t.is(await resident.stop(), 0)
  t.deepEqual(readdirSync(segmentDir), [])
})

test.serial('the binary form works for input and output', async (t) => {
  const resident = await load(t, [LOGP_BUNDLE, '--name', 'solubility'])
  const folder = temporaryFolder(t)
  const [input, output] = [join(folder, 'input.bin'), join(folder, 'output.bin')]
  writeFileSync(input, encodeInputs(SMILES))
  const { code } = run(resident.segmentDir, ['solubility', '--input', input, '--output', output, '--quiet'])
  t.is(code, 0)
  const { columns, rows } = decodeOutputs(readFileSync(output))
  t.deepEqual(columns, ['logp'])
  t.is(Number(rows[0]?.[0]).toFixed(4), '1.4048')
  t.deepEqual(rows[2], [null])
  writeFileSync(input, encodeInputs(SMILES).subarray(0, -1))
  t.is(run(resident.segmentDir, ['solubility', '--input', input, '--output', output]).code, 4)
  t.is(await resident.stop(), 0)
})

test.serial('with --segment-only there is no worker, and run attaches', async (t) => {
  const resident = await load(t, [LOGP_BUNDLE, '--segment-only'])
  const { segmentDir } = resident
  const { pid } = resident.process
  // The compile process may still be exiting.
  await until('no child process', () => readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1') === '')
  const input = writeInput(t, SMILES)
  const { code, stdout, stderr } = run(segmentDir, ['eos0lgp', '--input', input, '--output', '-'])
  t.is(code, 0, stderr)
  t.is(Number(stdout.split('\n')[1]).toFixed(4), '1.4048')
  t.is(run(segmentDir, ['eos0lgp', '--input', input, '--output', '-', '--via', 'socket']).code, 3)
  t.is(await resident.stop(), 0)
  t.deepEqual(readdirSync(segmentDir), [])
})

test.serial('with --http it also serves over HTTP, and on a configured socket', async (t) => {
  const path = join(temporaryFolder(t), 'onecopy.sock')
  // A stale socket, as a killed server leaves it.
  const dead = spawn(process.execPath, [
    '-e',
    'require("net").createServer().listen(process.argv[1], () => console.log("on"))',
    path,
  ])
  await once(dead.stdout, 'data')
  dead.kill('SIGKILL')
  await once(dead, 'exit')
  t.true(existsSync(path))
  const resident = await load(t, [
    ...[LOGP_BUNDLE, '--http', '--port', '0', '--admin-port', '0', '--socket', path],
  ])
  const [, url = ''] = /inference on (http:\S+),/.exec(resident.output()) ?? []
  const response = await fetch(`${url}/run?orient=values`, { method: 'POST', body: JSON.stringify(SMILES) })
  t.is(response.status, 200)
  const [[phenol]] = (await response.json()) as [[number]]
  t.is(phenol.toFixed(4), '1.4048')
  const input = writeInput(t, SMILES)
  const { code, stderr } = run(resident.segmentDir, [
    ...['eos0lgp', '--input', input, '--output', '-', '--via', 'socket', '--quiet'],
  ])
  t.is(code, 0, stderr)
  t.is(await resident.stop(), 0)
  t.false(existsSync(path))
})

test.serial('a model without a bundle accepts lines of numbers', async (t) => {
  const resident = await load(t, [LOGP_MODEL, '--segment-only', '--name', 'plain'])
  const path = join(temporaryFolder(t), 'numbers.csv')
  const request = JSON.parse(readFileSync(join(LOGP_BUNDLE, 'sample-request.json'), 'utf8'))
  const data = request.inputs[0].data as number[]
  const lines = [data.slice(0, 2048), data.slice(2048), [1, 2]].map((line) => line.join(','))
  writeFileSync(path, `bits\n${lines.join('\n')}\n`)
  const { code, stdout } = run(resident.segmentDir, ['plain', '--input', path, '--output', '-', '--quiet'])
  t.is(code, 0)
  const [header, phenol, ibuprofen, tooShort] = stdout.split('\n')
  t.is(header, 'logp')
  t.is(Number(phenol).toFixed(4), '1.4048')
  t.is(Number(ibuprofen).toFixed(4), '2.8360')
  t.is(tooShort, '""')
  t.is(await resident.stop(), 0)
})

test.serial(
  'run attaches to a model of onecopy load, and to a server that has released raw weights',
  async (t) => {
    const resident = await load(t, [LOGP_BUNDLE])
    // Started later: once this server releases raw weights, the other one would have done so too.
    const { server, url } = await startServer(t, { args: ['--workers', '1', '--bundle', LOGP_BUNDLE] })
    await server.logged(({ msg }) => msg === 'released raw weights')
    const input = writeInput(t, SMILES)
    const output = join(temporaryFolder(t), 'output.csv')
    const files = ['--input', input, '--output', output]
    const attached = run(resident.segmentDir, [LOGP_BUNDLE, ...files, '--via', 'segment'])
    t.is(attached.code, 0, attached.stderr)

    // Released raw weights are restored while a process attaches.
    const again = run(server.segmentDir, [LOGP_BUNDLE, ...files, '--via', 'segment'])
    t.is(again.code, 0, again.stderr)
    // Without its sockets only a cold load remains, with a warning that contains the reason.
    for (const name of server.segments().filter((one) => one.endsWith('.sock')))
      rmSync(join(server.segmentDir, name))
    const cold = run(server.segmentDir, [LOGP_BUNDLE, ...files])
    t.is(cold.code, 0, cold.stderr)
    t.regex(cold.stderr, /cannot be used[\s\S]*loaded only for this run/)
    t.is((await fetch(`${url}/v2/health/ready`)).status, 200)
    await server.stop()
    t.is(await resident.stop(), 0)
  },
)

test.serial('every failure has a message with the reason and its own exit code', async (t) => {
  const segmentDir = temporaryFolder(t, '/dev/shm')
  const input = writeInput(t, SMILES)
  const output = join(temporaryFolder(t), 'output.csv')
  const cases: [string[], number, RegExp][] = [
    [['nobody', '--input', input, '--output', output], 3, /MODEL_NOT_RESIDENT: no server .* holds "nobody"/],
    [['./nowhere', '--input', input, '--output', output], 1, /BUNDLE_INVALID: expected .* to be an Ersilia/],
    [[LOGP_BUNDLE, '--input', '/no/such.csv', '--output', output], 4, /--input \/no\/such.csv: ENOENT/],
    [[LOGP_BUNDLE, '--input', input, '--output', '/no/such.csv', '--quiet'], 4, /--output \/no\/such.csv/],
    [[LOGP_BUNDLE, '--input', input], 2, /expected --input and --output/],
    [[LOGP_BUNDLE, '--input', input, '--output', output, '--via', 'pigeon'], 2, /--via: expected socket/],
  ]
  for (const [args, expected, message] of cases) {
    const { code, stderr } = run(segmentDir, args)
    t.is(code, expected, stderr)
    t.regex(stderr, message)
  }
  t.false(existsSync(output))
  const { code, stderr } = run(segmentDir, [LOGP_BUNDLE, '--input', input, '--output', output])
  t.is(code, 0)
  t.regex(stderr, /warning: no server holds eos0lgp: its model is loaded only for this run/)
})

test.serial('a killed server is ignored: the model is loaded, with a warning', async (t) => {
  const resident = await load(t, [LOGP_BUNDLE, '--segment-only'])
  const exited = once(resident.process, 'exit')
  resident.process.kill('SIGKILL')
  await exited
  const input = writeInput(t, SMILES)
  const { code, stderr } = run(resident.segmentDir, [LOGP_BUNDLE, '--input', input, '--output', '-'])
  t.is(code, 0)
  t.regex(stderr, /loaded only for this run/)
})

/** A PATH with the `onecopy` command, for run.sh. */
function pathWithOnecopy(t: ExecutionContext): string {
  const folder = temporaryFolder(t)
  const path = join(folder, 'onecopy')
  writeFileSync(path, `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`)
  chmodSync(path, 0o755)
  return `${folder}:${process.env.PATH}`
}

test.serial('run.sh, started the way ersilia-pack starts it, attaches to the resident model', async (t) => {
  const bundle = makeBundle(t)
  const framework = join(bundle, 'model', 'framework')
  const { server } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  const input = join(temporaryFolder(t), 'input.csv')
  const output = join(temporaryFolder(t), 'output.csv')
  const smiles = molecules(5000)
  writeFileSync(input, `input\r\n${smiles.join('\r\n')}\r\n`)
  const script = (segmentDir: string) =>
    spawnSync('bash', [join(framework, 'run.sh'), framework, input, output, bundle], {
      env: { ...process.env, PATH: pathWithOnecopy(t), ONECOPY_SEGMENT_DIR: segmentDir },
      encoding: 'utf8',
    })
  const resident = script(server.segmentDir)
  t.is(resident.status, 0, resident.stderr)
  t.is(resident.stderr, '')
  const rows = linesOf(output)
  t.is(rows.length, smiles.length + 1)
  await stopCleanly(t, server)

  // Without a server the model is loaded only for this run, with a warning.
  const cold = script(temporaryFolder(t, '/dev/shm'))
  t.is(cold.status, 0)
  t.regex(cold.stderr, /loaded only for this run/)
  const differences = linesOf(output).map((row, i) => (i === 0 ? 0 : Math.abs(Number(row) - Number(rows[i]))))
  t.true(Math.max(...differences) < 1e-5)
})

test.serial('a run.sh that calls onecopy in a bundle without a manifest fails with the reason', (t) => {
  const bundle = makeBundle(t, { manifest: null })
  const input = writeInput(t, SMILES)
  const { status, stderr } = spawnSync(
    process.execPath,
    [MAIN, 'run', bundle, '--input', input, '--output', '-', '--segment-dir', temporaryFolder(t, '/dev/shm')],
    { env: { ...process.env, PATH: pathWithOnecopy(t) }, encoding: 'utf8' },
  )
  t.is(status, 1)
  t.regex(stderr, /calls onecopy, but the bundle has no serve\.json/)
})
