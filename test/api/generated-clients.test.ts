/**
 * Clients that others generate from the OpenAPI document: they compile in strict mode, and reach every route. The
 * generators need a TypeScript of their own, so they are fetched by npx; where that fails the tests are skipped.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openApiDocument, type Port } from '../../src/api/document.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { PROJECT_ROOT } from '../helpers/shared.js'

const TYPESCRIPT = 'typescript@5.9.3'
const TSC = join(PROJECT_ROOT, 'node_modules', '.bin', 'tsc')
const PORTS = ['public', 'admin'] as const

/** Runs a generator; false where it cannot be fetched. */
function generate(t: ExecutionContext, packageName: string, args: readonly string[]): boolean {
  const command = ['--yes', '--package', packageName, '--package', TYPESCRIPT, '--', ...args]
  const { status, stderr, stdout } = spawnSync('npx', command, { encoding: 'utf8', timeout: 120_000 })
  if (status === 0) return true
  if (!/npm (error|ERR!)/.test(stderr)) t.fail(`${args[0]}: ${stdout}${stderr}`)
  t.log(`skipped: ${packageName} cannot be fetched`)
  t.pass()
  return false
}

function compile(t: ExecutionContext, folder: string, options: object): void {
  const compilerOptions = {
    ...{ strict: true, noUncheckedIndexedAccess: true, target: 'es2022', types: [], skipLibCheck: false },
    ...{ lib: ['es2022', 'dom', 'dom.iterable'], module: 'esnext', moduleResolution: 'bundler' },
    ...options,
  }
  const settings = { compilerOptions, include: ['**/*.ts'] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(settings))
  const { status, stdout } = spawnSync(TSC, ['-p', folder], { encoding: 'utf8' })
  t.is(status, 0, stdout)
}

function writeDocument(folder: string, port: Port): string {
  const path = join(folder, `${port}.json`)
  const facts = { version: '1.2.3', hasBundle: true, hasSharedMemory: true, hasRepository: true }
  writeFileSync(path, JSON.stringify(openApiDocument(port, facts)))
  return path
}

/** Each line is an error of the compiler if the types say something else. */
const PROGRAM = `
import type { components, paths } from './public.js'
import type { paths as AdminPaths } from './admin.js'
type Infer = paths['/v2/models/{model}/infer']['post']
type Request = Infer['requestBody']['content']['application/json']
export const request: Request = {
  inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [[0.5, 2]] }],
}
// @ts-expect-error a scalar is no data
export const scalar: Request = { inputs: [{ name: 'x', shape: [], datatype: 'FP32', data: 1 }] }
type Answer = Infer['responses'][200]['content']['application/json']
export function first(answer: Answer): readonly number[] {
  const [output] = answer.outputs
  return output !== undefined && 'data' in output && output.datatype === 'INT32' ? output.data : []
}
type Query = NonNullable<paths['/run']['post']['parameters']['query']>
export const query: Query = { fetch_cache: true, min_workers: 2, orient: 'split' }
type Card = paths['/card']['get']['responses'][200]['content']['application/json']
export const card: Card = { Identifier: 'eos0lgp' }
export const index: AdminPaths['/v2/repository/index']['post']['responses'][200]['content']['application/json'] = []
export const error: components['schemas']['Error'] = { error: 'no' }
`

test.serial(
  "openapi-typescript's types compile in strict mode, and are what the server takes and answers",
  (t) => {
    const folder = temporaryFolder(t)
    for (const port of PORTS) {
      const args = ['openapi-typescript', writeDocument(folder, port), '-o', join(folder, `${port}.ts`)]
      if (!generate(t, 'openapi-typescript@7.13.0', args)) return
    }
    writeFileSync(join(folder, 'program.ts'), PROGRAM)
    compile(t, folder, { noEmit: true })
  },
)

interface Operation {
  readonly operationId: string
  readonly parameters: readonly { readonly in: string; readonly name: string; readonly required?: boolean }[]
  readonly requestBody?: {
    readonly content: Readonly<Record<string, { readonly example?: unknown }>>
  }
}

const VALUES: Readonly<Record<string, string>> = {
  ...{ model: 'eos0lgp', version: '1', region: 'r', id: 'none', field: 'Slug', file: 'page.css' },
}

/** What a generated function is called with: the example of its body, and something for every placeholder. */
function argumentsOf({ parameters, requestBody }: Operation): object {
  const inPath = parameters.filter((one) => one.in === 'path').map(({ name }) => [name, VALUES[name]])
  const body = requestBody?.content['application/json']?.example
  return { path: Object.fromEntries(inPath), ...(body === undefined ? {} : { body }) }
}

type Generated = (options: object) => Promise<{ readonly response: Response }>

test.serial("hey-api's client compiles in strict mode and reaches every route", async (t) => {
  const folder = temporaryFolder(t)
  const args = [
    ...['--model-control', 'explicit', '--load-model', '*', '--system-shared-memory', 'on', '--workers', '1'],
    ...['--repository-api', 'public'],
  ]
  const { server, url, adminUrl } = await startServer(t, { args })
  for (const [port, baseUrl] of [
    ['public', url],
    ['admin', adminUrl],
  ] as const) {
    const sources = join(folder, port)
    mkdirSync(sources)
    const document = writeDocument(folder, port)
    const generator = ['openapi-ts', '-i', document, '-o', sources, '-c', '@hey-api/client-fetch']
    if (!generate(t, '@hey-api/openapi-ts@0.90.0', generator)) return
    compile(t, sources, { noEmit: true })
    const compiled = join(folder, `${port}-compiled`)
    compile(t, sources, { module: 'commonjs', outDir: compiled, noCheck: true })
    writeFileSync(join(folder, 'package.json'), '{"type":"commonjs"}')
    const sdk = createRequire(import.meta.url)(join(compiled, 'sdk.gen.js')) as Record<string, Generated>
    const { paths } = JSON.parse(readFileSync(document, 'utf8')) as {
      paths: Record<string, Record<string, Operation>>
    }
    for (const [path, operations] of Object.entries(paths))
      for (const operation of Object.values(operations)) {
        // Its answer would be the end of this test's server as it is.
        if (operation.operationId === 'restart') continue
        const call = sdk[operation.operationId]
        if (call === undefined) {
          t.fail(`no function ${operation.operationId}`)
          continue
        }
        const { response } = await call({ ...argumentsOf(operation), baseUrl })
        const code = response.headers.get('X-Error-Code')
        t.false(code === 'ROUTE_NOT_FOUND' || code === 'METHOD_NOT_ALLOWED', `${port} ${path}: ${code}`)
      }
  }
  await stopCleanly(t, server)
})
