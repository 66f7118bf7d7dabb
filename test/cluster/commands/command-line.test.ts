import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { COMMAND_NAMES } from '../../../cluster/commands/definitions.js'
import { COMMON_OPTIONS } from '../../../cluster/commands/help.js'
import { dashed } from '../../../src/config/load.js'
import { OPTION_GROUPS } from '../../../src/config/option.js'
import { OPTIONS } from '../../../src/config/schema.js'
import { addModel, writeModel } from '../../helpers/onnx-builder.js'
import { runCommand, startServer, stopCleanly, temporaryFolder } from '../../helpers/server.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'

const COLUMNS = 80

test('serve takes model files, folders of models and repositories as arguments', async (t) => {
  const repository = writeModel(temporaryFolder(t), 'folder', addModel())
  const file = join(temporaryFolder(t), 'file.onnx')
  writeFileSync(file, addModel())
  const { server, url } = await startServer(t, {
    args: [file, join(repository, 'folder'), '--workers', '1'],
  })
  const { models } = (await (await fetch(`${url}/v2/models`)).json()) as { models: string[] }
  t.deepEqual(models.toSorted(), ['file', 'folder'])
  await stopCleanly(t, server)
})

test('serve rejects an argument that is not a model and names what it expected', (t) => {
  const file = join(temporaryFolder(t), 'notes.txt')
  writeFileSync(file, 'text')
  const { code, stdout, stderr } = runCommand(['serve', file, '--port', '0', '--admin-port', '0'])
  t.is(code, 1)
  t.regex(stdout + stderr, /notes\.txt to be a model repository, the folder of a model or a file \.onnx/)
})

test('help lists every command, in 80 columns, and exits 0', (t) => {
  const { code, stdout } = runCommand(['--help'])
  t.is(code, 0)
  for (const name of COMMAND_NAMES) t.regex(stdout, new RegExp(`^  ${name} `, 'm'), name)
  t.deepEqual(
    stdout.split('\n').filter((line) => line.length > COLUMNS),
    [],
  )
})

for (const name of COMMAND_NAMES) {
  test(`onecopy help ${name} and onecopy ${name} --help show the same text, in 80 columns`, (t) => {
    const { code, stdout } = runCommand(['help', name])
    t.is(code, 0)
    t.regex(stdout, new RegExp(`^Usage: onecopy ${name}\\b`))
    t.deepEqual(
      stdout.split('\n').filter((line) => line.length > COLUMNS),
      [],
    )
    if (name !== 'help') t.is(runCommand([name, '--help']).stdout, stdout)
  })
}

test('help for serve shows ten common options first, and every group and option once', (t) => {
  const { stdout } = runCommand(['help', 'serve'])
  const lines = stdout.split('\n')
  t.is(COMMON_OPTIONS.length, 10)
  for (const group of [...OPTION_GROUPS, 'Most used'])
    t.is(lines.filter((line) => line === `${group}:`).length, 1, group)
  for (const name of Object.keys(OPTIONS))
    t.is(lines.filter((line) => line.startsWith(`  --${dashed(name)} `)).length, 1, name)
  t.true(lines.indexOf('Most used:') < lines.indexOf('Models:'))
})

test('a mistyped command suggests the nearest one, exit code 2', (t) => {
  const { code, stderr } = runCommand(['inspekt', 'x.onnx'])
  t.is(code, 2)
  t.regex(stderr, /unknown command "inspekt" \(did you mean inspect\?\)/)
  t.regex(runCommand(['help', 'sevre']).stderr, /did you mean serve\?/)
})

test('a mistyped option of any command suggests the nearest one, exit code 2', (t) => {
  for (const [args, hint] of [
    [['serve', '--worker', '2'], '--workers'],
    [['inspect', '--jsno', 'x.onnx'], '--json'],
    [['segments', '--sweeep'], '--sweep'],
    [['load', 'x.onnx', '--segment-olny'], '--segment-only'],
    [['run', 'x', '--inptu', 'y'], '--input'],
  ] as const) {
    const { code, stderr } = runCommand(args)
    t.is(code, 2, args.join(' '))
    t.true(stderr.includes(`(did you mean ${hint}?)`), stderr)
  }
})

test('a shell completes commands and options from the script', (t) => {
  const script = runCommand(['completion', 'bash']).stdout
  const complete = (words: readonly string[]) => {
    const probe = `${script}
COMP_WORDS=(onecopy ${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length}
_onecopy; printf '%s\\n' "\${COMPREPLY[@]}"`
    return spawnSync('bash', ['-c', probe], { encoding: 'utf8' }).stdout.split('\n')
  }
  t.true(complete(['ins']).includes('inspect'))
  t.true(complete(['serve', '--drain']).includes('--drain-timeout'))
  t.true(complete(['inspect', '--ku']).includes('--kubernetes'))
  t.true(complete(['completion', 'z']).includes('zsh'))
})

test('every shell has a script that names every command and every option of serve', (t) => {
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { code, stdout } = runCommand(['completion', shell])
    t.is(code, 0, shell)
    for (const name of [...COMMAND_NAMES, ...Object.keys(OPTIONS).map(dashed)])
      t.true(stdout.includes(name), `${shell}: ${name}`)
  }
  t.is(runCommand(['completion', 'powershell']).code, 2)
})

test('inspect and init print tables of 80 columns', (t) => {
  const model = join(PROJECT_ROOT, 'models', 'logp', '1', 'model.onnx')
  for (const args of [
    ['inspect', model, '--no-measure'],
    ['init', model, '--output', temporaryFolder(t)],
  ]) {
    const { code, stdout, stderr } = runCommand(args)
    t.is(code, 0, stderr)
    const lines = stdout.split('\n').filter((line) => !line.startsWith('wrote '))
    t.deepEqual(
      lines.filter((line) => [...line].length > COLUMNS),
      [],
    )
  }
})
