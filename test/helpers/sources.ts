/** Reads imports from the source text, and assigns files to modules. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { PROJECT_ROOT } from './shared.js'

export function sourcesIn(folder: string): string[] {
  return readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => join(folder, path))
}

export function importsOf(path: string): string[] {
  const text = readFileSync(join(PROJECT_ROOT, path), 'utf8')
  return [...text.matchAll(/(?:from|import|require\()\s*\(?'([^']+)'/g)].map((match) => match[1] as string)
}

/** Files of `cluster` that its modules may import. Main, primary and worker import the modules. */
const CLUSTER_BASE: ReadonlySet<string> = new Set(['messages', 'signals', 'port', 'progress', 'exit-codes'])

/**
 * The module of a file: the first folder or file below `src`. Below `cluster` it is the folder,
 * `cluster/base` for shared files, and `cluster` for main, primary and worker.
 */
export function moduleOf(path: string): string {
  const [top = '', first = '', ...rest] = path.split('/')
  const name = first.replace(/\.[jt]s$/, '')
  if (top === 'src') return name
  if (rest.length > 0) return `cluster/${name}`
  return CLUSTER_BASE.has(name) ? 'cluster/base' : 'cluster'
}

/** Paths of project files that a file imports. */
export function localImportsOf(path: string): string[] {
  return importsOf(path)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(path), specifier))
}

/** Import cycles of any length (Tarjan's strongly connected components). */
export function cyclesIn(imports: ReadonlyMap<string, Iterable<string>>): string[][] {
  const index = new Map<string, number>()
  const low = new Map<string, number>()
  const stack: string[] = []
  const cycles: string[][] = []
  const visit = (node: string): void => {
    index.set(node, index.size)
    low.set(node, index.get(node) as number)
    stack.push(node)
    for (const target of imports.get(node) ?? []) {
      if (!imports.has(target)) continue
      if (!index.has(target)) visit(target)
      if (stack.includes(target)) low.set(node, Math.min(low.get(node) as number, low.get(target) as number))
    }
    if (low.get(node) !== index.get(node)) return
    const cycle = stack.splice(stack.indexOf(node))
    if (cycle.length > 1) cycles.push(cycle.sort())
  }
  for (const node of imports.keys()) if (!index.has(node)) visit(node)
  return cycles
}
