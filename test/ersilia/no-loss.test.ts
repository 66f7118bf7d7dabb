/** A bundle preserves rows, signs and types. */
import { cpSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { runCommand, spawnServer, startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { withinDeadline } from '../helpers/waiting.js'
import { makeBundle } from './helpers.js'

/** A bundle whose run.sh returns a given text and records its input. */
function scripted(
  t: ExecutionContext,
  {
    answer,
    columns,
    examples,
    card = {},
  }: { answer: string; columns?: string; examples?: string; card?: Record<string, unknown> },
): string {
  return makeBundle(t, {
    manifest: null,
    card: { 'Output Type': undefined, ...card },
    files: {
      'answer.csv': answer,
      'run.sh': '#!/bin/bash\ncat "$1/answer.csv" > "$3"; cp "$2" "$1/given.csv"\n',
      'columns/run_columns.csv':
        columns ?? 'name,type,direction,description\nx,float,high,\nn,integer,high,\n',
      'examples/run_output.csv': examples ?? answer,
      'examples/run_input.csv': 'smiles\nC\n',
    },
  })
}

function runOn(t: ExecutionContext, bundle: string, input: string | Uint8Array) {
  const folder = temporaryFolder(t)
  const [from, to] = [join(folder, 'in.csv'), join(folder, 'out.csv')]
  writeFileSync(from, input)
  const args = ['run', bundle, '--input', from, '--output', to, '--quiet', '--segment-dir', folder]
  const { code, stderr } = runCommand(args)
  return { code, stderr, output: code === 0 ? readFileSync(to, 'utf8') : null }
}

/** In the layout of ersilia-pack. */
function packed(t: ExecutionContext, bundle: string): string {
  const root = join(temporaryFolder(t), 'eos9zzz', '20260101-aaaa')
  mkdirSync(root, { recursive: true })
  cpSync(bundle, root, { recursive: true })
  const card = JSON.parse(readFileSync(join(root, 'metadata.json'), 'utf8'))
  renameSync(join(root, 'metadata.json'), join(root, 'information.json'))
  writeFileSync(join(root, 'information.json'), JSON.stringify({ card, model_id: 'eos9zzz' }))
  return join(root, '..')
}

test.serial('a file with mixed line endings has a row per line, and null rows are kept', (t) => {
  const { code, stderr, output } = runOn(t, makeBundle(t), 'smiles\r\nCCO\nnonsense\rCCCC\n\nc1ccccc1\n')
  t.is(code, 0, stderr)
  const lines = output?.split('\n') ?? []
  t.is(lines.length, 7)
  t.deepEqual(
    lines.map((line) => (Number.isFinite(Number.parseFloat(line)) ? 'number' : line)),
    ['logp', 'number', '""', 'number', '""', 'number', ''],
  )
})

test.serial('UTF-16 is read; other encodings and truncated text are rejected with the line', (t) => {
  const bundle = makeBundle(t)
  const { code, output } = runOn(t, bundle, Buffer.from('\ufeffsmiles\r\nCCO\r\nC\r\n', 'utf16le'))
  t.is(code, 0)
  t.is(output?.trim().split('\n').length, 3)
  for (const [input, says] of [
    [Buffer.from('smiles\nCCO\nC\xe9\n', 'latin1'), /line 3/],
    [Buffer.from('smiles\nCCO\n', 'utf16le'), /UTF-16 without/],
    [Buffer.from('smiles\nCC |c:1,3|\n'), /row 1: expected 1 fields/],
    [Buffer.from('smiles\n"CC\nCCC\n'), /[Qq]uote/],
  ] as const) {
    const refused = runOn(t, bundle, input)
    t.is(refused.code, 4, refused.stderr)
    t.regex(refused.stderr, says)
  }
})

test.serial(
  'columns of floats and integers are numbers without an Output Type, whether packed or not, served or run',
  async (t) => {
    const bundle = scripted(t, { answer: 'x,n\n6.0,3\n-0.0,\n' })
    for (const root of [bundle, packed(t, bundle)]) {
      const { server, url } = await startServer(t, { args: ['--bundle', root, '--workers', '1'] })
      const body = JSON.stringify(['CCO', 'C'])
      const ask = async (query: string) => await fetch(`${url}/run?${query}`, { method: 'POST', body })
      t.is(await (await ask('orient=values')).text(), '[[6,3],[-0.0,null]]')
      t.is(await (await ask('orient=records')).text(), '[{"x":6,"n":3},{"x":-0.0,"n":null}]')
      t.is((await ask('output_type=heavy')).status, 200)
      await stopCleanly(t, server)
      const { code, stderr, output } = runOn(t, root, 'smiles\nCCO\nC\n')
      t.is(code, 0, stderr)
      t.is(output, 'x,n\n6,3\n-0.0,\n')
    }
  },
)

test.serial('with a resident model, an undeclared column gets the type of its examples', async (t) => {
  const bundle = makeBundle(t, {
    manifest: { output: { kind: 'values', decimals: 0 } },
    card: { 'Output Type': undefined },
    files: {
      'columns/run_columns.csv': 'name\nlogp\n',
      'examples/run_output.csv': 'logp\r1.0\r3\r',
      'examples/run_input.csv': 'smiles\r\nOc1ccccc1\rCC(C)Cc1ccc(cc1)C(C)C(=O)O\n',
    },
  })
  const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  const response = await fetch(`${url}/run?orient=values`, { method: 'POST', body: '["Oc1ccccc1"]' })
  t.is(await response.text(), '[[1]]')
  await stopCleanly(t, server)
})

test.serial('incomplete examples are rejected instead of skipped', async (t) => {
  const files = { 'examples/run_output.csv': 'logp\n1.4048\n2.8360\n' }
  const server = spawnServer(t, { args: ['--bundle', makeBundle(t, { files }), '--workers', '1'] })
  t.is((await withinDeadline('the server to end', server.exited)).code, 1)
  t.regex(
    server.log.find(({ level }) => level === 'fatal')?.msg ?? '',
    /each of the \d+ example inputs, got 2/,
  )
})

test.serial('run.sh must return a complete row for every input, in distinct columns', (t) => {
  for (const [answer, says] of [
    ['x,n\n1,2\n', /1 lines for 2 inputs/],
    ['x,n\n1,2\n3,4\n5,6\n', /3 lines for 2 inputs/],
    ['x,n\n1,2\n3\n', /1 fields in row 2: expected 2/],
    ['x,n\n1,2\n3,4,5\n', /3 fields in row 2: expected 2/],
    ['x,x\n1,2\n3,4\n', /column "x" twice/],
    ['n,z\n1,2\n3,4\n', /expected x, n/],
    ['x,n\n"1,2\n3,4\n', /unreadable output/],
  ] as const) {
    const { code, stderr } = runOn(t, scripted(t, { answer, examples: 'x,n\n1,2\n' }), 'smiles\nCCO\nC\n')
    t.is(code, 1, stderr)
    t.regex(stderr, says)
  }
  for (const answer of ['n,x\r\n2,1\n""\r\n', 'a,b\n1,2\n\n'])
    t.is(
      runOn(t, scripted(t, { answer, examples: 'x,n\n1,2\n' }), 'smiles\nCCO\nC\n').output,
      'x,n\n1,2\n,\n',
    )
})

test.serial(
  'text reaches run.sh unchanged; text that a file cannot represent gives a row of nulls',
  async (t) => {
    const bundle = scripted(t, { answer: 'x,n\n1,2\n3,4\n', examples: 'x,n\n1,2\n' })
    const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
    const run = (body: string | Uint8Array<ArrayBuffer>) =>
      fetch(`${url}/run?orient=values`, { method: 'POST', body })
    const answer = await run('["C\\u0000O","a\\"b,\\n c","\\ud800","ä"]')
    t.deepEqual(await answer.json(), [
      [null, null],
      [1, 2],
      [null, null],
      [3, 4],
    ])
    const given = readFileSync(join(bundle, 'model', 'framework', 'given.csv'), 'utf8')
    t.is(given, 'input\n"a""b,\n c"\nä\n')
    const broken = await run(Uint8Array.from(Buffer.from('["\xff"]', 'latin1')))
    t.is(broken.status, 422)
    t.regex(JSON.stringify(((await broken.json()) as { detail: unknown }).detail), /UTF-8/)
    await stopCleanly(t, server)
  },
)

test.serial('integers above 32 bits are rejected in the heavy format instead of wrapping', async (t) => {
  const card = { 'Output Type': ['Integer'] }
  const bundle = scripted(t, { answer: 'x,n\n2147483647,2147483648\n', card, examples: 'x,n\n1,2\n' })
  const { server, url } = await startServer(t, { args: ['--bundle', bundle, '--workers', '1'] })
  const ask = (query: string) => fetch(`${url}/run?${query}`, { method: 'POST', body: '["C"]' })
  t.deepEqual(await (await ask('orient=values')).json(), [[2147483647, 2147483648]])
  const heavy = await ask('output_type=heavy')
  t.is(heavy.status, 422)
  t.regex(await heavy.text(), /column 2: 2147483648 exceeds the range of 32-bit integers/)
  await stopCleanly(t, server)
})
