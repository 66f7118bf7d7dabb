import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { importsOf, roomOf, sourcesIn } from '../helpers/sources.js'

/** Lower rooms know nothing of higher ones; rooms on one floor know each other only where listed. */
const FLOORS: Record<string, number> = {
  errors: 0,
  tensor: 0,
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
  api: 2,
  transform: 1,
  onnx: 2,
  batchability: 3,
  model: 4,
  engine: 2,
  batch: 2,
  http: 2,
  client: 3,
  ersilia: 5,
  'served-models': 5,
  'serving-policy': 5,
  'warm-up': 5,
  server: 6,
}
const NEIGHBOURS = new Set<string>(['http -> api'])
/** The fewest files that can. */
const NATIVE_MODULES: Record<string, readonly string[]> = {
  'mmap-io': ['src/mapping.ts'],
  koffi: ['src/mapping.ts', 'src/process/data-limit.ts', 'src/process/lock.ts', 'src/segment/holes.ts'],
  'onnxruntime-node': ['src/runtime/session.ts'],
  '@rdkit/rdkit': ['src/transform/morgan.ts'],
}

test('imports go down the floors of the house, never up', (t) => {
  for (const path of sourcesIn('src')) {
    const room = roomOf(path)
    t.true(
      room in FLOORS,
      `${path}: room ${room} has no floor; give it one here and a line in the README's tour`,
    )
    for (const specifier of importsOf(path).filter((one) => one.startsWith('.'))) {
      const target = roomOf(join(dirname(path), specifier))
      if (target === room) continue
      const isBelow = (FLOORS[target] ?? Number.POSITIVE_INFINITY) < (FLOORS[room] ?? 0)
      const isListed = NEIGHBOURS.has(`${room} -> ${target}`) || (FLOORS[room] === 0 && FLOORS[target] === 0)
      t.true(isBelow || isListed, `${path} imports ${specifier}: ${room} must not know ${target}`)
    }
  }
})

test('src knows nothing of other processes', (t) => {
  for (const path of sourcesIn('src')) {
    t.false(importsOf(path).includes('node:cluster'), path)
    t.notRegex(readFileSync(join(PROJECT_ROOT, path), 'utf8'), /process\.send\b/, path)
    t.false(
      importsOf(path).some((specifier) => specifier.includes('/cluster/')),
      path,
    )
  }
})

test('native modules are imported by the files listed here', (t) => {
  for (const path of [...sourcesIn('src'), ...sourcesIn('cluster')]) {
    for (const specifier of importsOf(path)) {
      const only = NATIVE_MODULES[specifier]
      if (only !== undefined) t.true(only.includes(path), `${path} imports ${specifier}`)
    }
  }
})

test('no file of the product is too long to be read in one sitting', (t) => {
  for (const path of [...sourcesIn('src'), ...sourcesIn('cluster')]) {
    if (path.endsWith('_pb.ts')) continue
    const lines = readFileSync(join(PROJECT_ROOT, path), 'utf8').split('\n').length
    t.true(lines <= 400, `${path} has ${lines} lines`)
  }
})
