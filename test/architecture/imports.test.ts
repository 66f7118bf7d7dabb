import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { cyclesIn, importsOf, localImportsOf, moduleOf, sourcesIn } from '../helpers/sources.js'

/** A module imports modules of lower layers only; within a layer only what is listed. */
const LAYERS: Record<string, number> = {
  errors: 0,
  installation: 0,
  'error-schemas': 0,
  tensor: 0,
  'token-pooling': 0,
  units: 0,
  lifecycle: 0,
  log: 0,
  process: 0,
  mapping: 0,
  access: 1,
  config: 1,
  metrics: 1,
  segment: 1,
  protocol: 1,
  regions: 1,
  runtime: 1,
  transform: 1,
  text: 3,
  onnx: 2,
  inference: 4,
  api: 2,
  engine: 2,
  batch: 2,
  repository: 4,
  batchability: 3,
  http: 5,
  grpc: 6,
  client: 3,
  compile: 5,
  sharing: 6,
  ersilia: 7,
  server: 8,
  library: 9,
  'cluster/base': 10,
  'cluster/workers': 11,
  'cluster/models': 12,
  'cluster/admin': 13,
  'cluster/commands': 15,
  cluster: 14,
}
/** `main` imports commands lazily; a command that serves starts the primary. */
const NEIGHBOURS = new Set<string>(['cluster -> cluster/commands'])
/** As few files as possible. */
const NATIVE_MODULES: Record<string, readonly string[]> = {
  'mmap-io': ['src/mapping.ts'],
  koffi: [
    'src/mapping.ts',
    'src/process/data-limit.ts',
    'src/process/lock.ts',
    'src/runtime/process-environment.ts',
    'src/segment/holes.ts',
  ],
  'onnxruntime-node': ['src/runtime/session.ts'],
  '@rdkit/rdkit': ['src/transform/morgan.ts'],
  tokenizers: ['src/transform/tokenizer-library.ts'],
}

const PRODUCT = [...sourcesIn('src'), ...sourcesIn('cluster')]

/** Project files that a file imports, type imports included. */
function importedFiles(path: string): string[] {
  return localImportsOf(path).map((target) => target.replace(/\.js$/, '.ts'))
}

test('imports only go down the layers', (t) => {
  for (const path of PRODUCT) {
    const from = moduleOf(path)
    t.true(
      from in LAYERS,
      `${path}: module ${from} has no layer; give it one here and a line in docs/architecture.md`,
    )
    for (const target of importedFiles(path).map(moduleOf)) {
      if (target === from) continue
      const isBelow = (LAYERS[target] ?? Number.POSITIVE_INFINITY) < (LAYERS[from] ?? 0)
      const isListed = NEIGHBOURS.has(`${from} -> ${target}`) || (LAYERS[from] === 0 && LAYERS[target] === 0)
      t.true(isBelow || isListed, `${path}: ${from} must not import ${target}`)
    }
  }
})

test('files have no import cycles, types included', (t) => {
  t.deepEqual(cyclesIn(new Map(PRODUCT.map((path) => [path, importedFiles(path)]))), [])
})

test('modules have no import cycles, except main, which loads the commands', (t) => {
  const modules = new Map<string, Set<string>>()
  for (const path of PRODUCT.filter((one) => one !== 'cluster/main.ts')) {
    const targets = modules.get(moduleOf(path)) ?? new Set<string>()
    for (const target of importedFiles(path))
      if (moduleOf(target) !== moduleOf(path)) targets.add(moduleOf(target))
    modules.set(moduleOf(path), targets)
  }
  t.deepEqual(cyclesIn(modules), [])
})

test('src does not use node:cluster or messages between processes', (t) => {
  for (const path of sourcesIn('src')) {
    t.false(importsOf(path).includes('node:cluster'), path)
    t.notRegex(readFileSync(join(PROJECT_ROOT, path), 'utf8'), /process\.send\b/, path)
    t.false(
      importsOf(path).some((specifier) => specifier.includes('/cluster/')),
      path,
    )
  }
})

test('only the listed files import native modules', (t) => {
  for (const path of [...sourcesIn('src'), ...sourcesIn('cluster')]) {
    for (const specifier of importsOf(path)) {
      const only = NATIVE_MODULES[specifier]
      if (only !== undefined) t.true(only.includes(path), `${path} imports ${specifier}`)
    }
  }
})

test('no source file is longer than 400 lines', (t) => {
  for (const path of [...sourcesIn('src'), ...sourcesIn('cluster')]) {
    if (path.endsWith('_pb.ts')) continue
    const lines = readFileSync(join(PROJECT_ROOT, path), 'utf8').split('\n').length
    t.true(lines <= 400, `${path} has ${lines} lines`)
  }
})

test('the inference thread does not load the library of schemas', (t) => {
  const seen = new Set<string>()
  const visit = (path: string): void => {
    if (seen.has(path)) return
    seen.add(path)
    const text = readFileSync(join(PROJECT_ROOT, path), 'utf8')
    t.false(/node_modules\/zod\//.test(text), path)
    for (const [, target = ''] of text.matchAll(/(?:from|import) "(\.[^"]+)"/g))
      visit(join(dirname(path), target))
  }
  visit('dist/src/engine/thread.js')
  t.true(seen.size > 5)
})

test('packages that are imported dynamically are not bundled: a CommonJS one would lose its named exports', (t) => {
  const { scripts } = JSON.parse(readFileSync(join(PROJECT_ROOT, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const dynamic = [...sourcesIn('src'), ...sourcesIn('cluster')].flatMap((path) => {
    const text = readFileSync(join(PROJECT_ROOT, path), 'utf8')
    return [...text.matchAll(/await import\('([^.'][^':]*)'\)/g)].map(([, name]) => name)
  })
  t.true(dynamic.length > 0)
  for (const name of dynamic) t.true(scripts.bundle?.includes(`--external:${name} `), name)
})
