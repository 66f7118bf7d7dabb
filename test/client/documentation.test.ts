import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { startServer, stopCleanly } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'

const run = promisify(execFile)

test('every example of docs/client.md prints the documented output and type-checks', async (t) => {
  const text = readFileSync(join(PROJECT_ROOT, 'docs', 'client.md'), 'utf8')
  const examples = [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code = '']) => code)
  t.true(examples.length >= 4)
  const { server, url } = await startServer(t, { args: ['--workers', '1'] })
  // Inside the package, so that its name can be imported as by users.
  const folder = mkdtempSync(join(PROJECT_ROOT, 'dist', TEMPORARY_PREFIX))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  for (const [i, example] of examples.entries()) {
    const code = example.replaceAll('http://localhost:8080', url)
    // The examples have no type annotations, so they are valid JavaScript.
    const path = join(folder, `${i}.mjs`)
    writeFileSync(path, code)
    writeFileSync(join(folder, `${i}.mts`), code)
    const { stdout } = await run(process.execPath, [path])
    const printed = [...example.matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map(([, line = '']) => line)
    t.not(printed.length, 0)
    t.deepEqual(stdout.trimEnd().split('\n'), printed, example)
  }
  const compiler = join(PROJECT_ROOT, 'node_modules', '.bin', 'tsc')
  const options = ['--noEmit', '--strict', '--noUncheckedIndexedAccess', '--ignoreConfig']
  const target = ['--module', 'nodenext', '--target', 'es2022', '--lib', 'es2023,dom', '--types', '']
  const files = examples.map((_, i) => join(folder, `${i}.mts`))
  t.notThrows(() =>
    execFileSync(compiler, [...options, ...target, ...files], { stdio: 'pipe', encoding: 'utf8' }),
  )
  await stopCleanly(t, server)
})
