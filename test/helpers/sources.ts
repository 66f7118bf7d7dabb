/** The source as text: which file imports what, and which room it belongs to. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
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

/** The first folder or file below `src`. */
export function roomOf(path: string): string {
  return (
    relative('src', path)
      .split('/')[0]
      ?.replace(/\.[jt]s$/, '') ?? ''
  )
}

/** Paths of the project's own files that a file imports. */
export function localImportsOf(path: string): string[] {
  return importsOf(path)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => join(dirname(path), specifier))
}
