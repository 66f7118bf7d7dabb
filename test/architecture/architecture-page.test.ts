import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT } from '../helpers/shared.js'
import { localImportsOf, moduleOf, sourcesIn } from '../helpers/sources.js'

const PAGE = readFileSync(join(PROJECT_ROOT, 'docs', 'architecture.md'), 'utf8')
const PICTURE = PAGE.match(/```mermaid\n([\s\S]*?)```/)?.[1] ?? ''
const BASE = new Set(
  (PICTURE.match(/subgraph base.*\n([\s\S]*?)\n *end/)?.[1] ?? '').split('\n').map((line) => line.trim()),
)

function drawnArrows(): string[] {
  return [...PICTURE.matchAll(/^ *([\w/-]+) --> (.+)$/gm)].flatMap(([, from, targets = '']) =>
    targets.split('&').map((target) => `${from} --> ${target.trim()}`),
  )
}

/** Import edges between modules. */
function realArrows(): string[] {
  const arrows = [...sourcesIn('src'), ...sourcesIn('cluster')].flatMap((path) =>
    localImportsOf(path)
      .map(moduleOf)
      .filter((target) => target !== moduleOf(path))
      .map((target) => [moduleOf(path), target] as const),
  )
  return [...new Set(arrows.map((arrow) => arrow.join(' --> ')))]
}

function isBase(module: string | undefined): boolean {
  return BASE.has(module ?? '')
}

test('the module diagram has exactly the arrows of the imports', (t) => {
  const real = realArrows().filter((arrow) => !isBase(arrow.split(' --> ')[1]))
  t.true(real.length > 20, 'imports were found')
  t.deepEqual(drawnArrows().sort(), real.sort())
})

test('base modules of the diagram import only base modules', (t) => {
  t.true(BASE.size > 3)
  for (const arrow of realArrows()) {
    const [from, to] = arrow.split(' --> ')
    if (isBase(from)) t.true(isBase(to), arrow)
  }
})

test('every file referenced by the architecture page and CONTRIBUTING exists', (t) => {
  for (const [folder, name] of [
    ['docs', 'architecture.md'],
    ['.', 'CONTRIBUTING.md'],
  ] as const) {
    const text = readFileSync(join(PROJECT_ROOT, folder, name), 'utf8')
    const links = [...text.matchAll(/\]\(([^)#]+)\)/g)].map((match) => match[1] as string)
    for (const link of links.filter((one) => !one.startsWith('http'))) {
      t.true(existsSync(resolve(PROJECT_ROOT, folder, link)), `${name}: ${link}`)
    }
  }
})
