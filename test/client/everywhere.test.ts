import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join, relative } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { BrowserPage, testInBrowser } from '../helpers/browser.js'
import { startServer, stopCleanly } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const BUILT = join(PROJECT_ROOT, 'dist', 'src')
const ENTRY = join(BUILT, 'client', 'client.js')

/** The import specifiers of a built module, without types. */
function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8')
  return [...text.matchAll(/(?:from|import)\s*\(?\s*['"]([^'"]+)['"]/g)].map(
    ([, specifier = '']) => specifier,
  )
}

function moduleGraph(entry: string): string[] {
  const found = new Set([entry])
  for (const path of found) {
    for (const specifier of importsOf(path)) {
      if (specifier.startsWith('.')) found.add(join(dirname(path), specifier))
      else throw new Error(`${path} imports ${specifier}`)
    }
  }
  return [...found]
}

test('the built client imports only itself and the datatypes: no Node.js modules, no packages', (t) => {
  const graph = moduleGraph(ENTRY).map((path) => relative(BUILT, path))
  t.deepEqual(
    graph.filter((path) => !path.startsWith('client/')),
    ['tensor.js'],
  )
  for (const path of graph) {
    const code = readFileSync(join(BUILT, path), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
    t.notRegex(code, /\b(?:Buffer|process|require|__dirname|setImmediate)\b/, path)
  }
})

test('the package exports the client, with its types', async (t) => {
  const { exports } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8'))
  for (const path of Object.values(exports['./client']) as string[])
    t.notThrows(() => readFileSync(join(PROJECT_ROOT, path)))
  // By the published name: a package can import itself.
  const name = 'onecopy/client'
  t.is(typeof ((await import(name)) as { createClient: unknown }).createClient, 'function')
})

/** Serves the built modules to pages of any origin. */
async function serveModules(t: ExecutionContext): Promise<string> {
  const server = createServer((request, response) => {
    const headers = { 'Content-Type': 'text/javascript', 'Access-Control-Allow-Origin': '*' }
    response.writeHead(200, headers).end(readFileSync(join(BUILT, request.url ?? '')))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

testInBrowser('the client works in a browser', async (t) => {
  const modules = await serveModules(t)
  const { server, url } = await startServer(t, { args: ['--workers', '1'] })
  const page = await BrowserPage.open(t, `${url}/v2/health/live`, { isTrusted: true })
  const answers = await page.evaluate<object>(`(async () => {
    const { createClient } = await import('${modules}/client/client.js')
    const data = new Float32Array(2048)
    const inputs = [{ name: 'fingerprint', datatype: 'FP32', shape: [1, 2048], data }]
    const answers = []
    for (const encoding of ['binary', 'json'])
      for (const compression of [null, 'gzip']) {
        const client = createClient({ url: '', encoding, compression })
        const result = await client.infer({ model: 'logp', inputs })
        answers.push([result.output('logp', 'FP32').data[0], await client.ready()])
      }
    const failure = await createClient({ url: '' }).metadata('none').catch((error) => error)
    return { answers, failure: [failure.name, failure.status, failure.code] }
  })()`)
  const { answers: got, failure } = answers as { answers: [number, boolean][]; failure: unknown[] }
  t.deepEqual(failure, ['InferenceError', 404, 'MODEL_NOT_FOUND'])
  t.is(got.length, 4)
  for (const [logp, isReady] of got) {
    t.is(logp, got[0]?.[0] as number)
    t.is(typeof logp, 'number')
    t.true(isReady)
  }
  await stopCleanly(t, server)
})
