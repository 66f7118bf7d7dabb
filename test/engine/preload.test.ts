/** When the inference thread loads the runtime, which reads the environment of its process. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import test from 'ava'

/** CommonJS: threads would inherit --input-type. */
const SCRIPT = `
const { readFileSync } = require('node:fs')
import(process.argv[1]).then(async ({ Engine }) => {
  const engine = new Engine(JSON.parse(process.argv[2]))
  await engine.ping()
  console.log(readFileSync('/proc/self/maps', 'utf8').includes('libonnxruntime'))
  await engine.close()
})
`

async function hasRuntimeWithoutModel(start: { preloadsRuntime?: boolean }): Promise<string> {
  const url = new URL('../../src/engine/engine.js', import.meta.url).href
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', SCRIPT, url, JSON.stringify(start)], {
    timeout: 60_000,
  })
  return stdout.trim()
}

test('the runtime is loaded with the first model, after the process has set its environment', async (t) => {
  t.is(await hasRuntimeWithoutModel({}), 'false')
})

test('a worker, whose environment is set, loads the runtime before it has a model', async (t) => {
  t.is(await hasRuntimeWithoutModel({ preloadsRuntime: true }), 'true')
})
