/**
 * The control groups of this process and the files with their limits. Any ancestor can set a limit. In a
 * container the group's own path is often not visible, but the root is. Source: cgroups(7), v1 and v2.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export type ReadText = (path: string) => string | null

export function readTextOrNull(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

const ROOT = '/sys/fs/cgroup'

/**
 * Reads the `v2` or `v1` files of every group with this controller, starting with the group of this process.
 */
export function* readLimits(
  controller: 'cpu' | 'memory',
  files: { readonly v1: readonly string[]; readonly v2: string },
  readText: ReadText = readTextOrNull,
): Generator<{ readonly isV2: boolean; readonly texts: readonly (string | null)[] }> {
  for (const line of (readText('/proc/self/cgroup') ?? '').split('\n')) {
    const [, controllers, path] = line.match(/^\d+:([^:]*):(.*)$/) ?? []
    if (controllers === undefined || path === undefined) continue
    const isV2 = controllers === ''
    if (!isV2 && !controllers.split(',').includes(controller)) continue
    const root = isV2 ? ROOT : join(ROOT, controllers)
    for (let at = path; ; at = dirname(at)) {
      const names = isV2 ? [files.v2] : files.v1
      yield { isV2, texts: names.map((name) => readText(join(root, at, name))) }
      if (at === '/' || at === '.') break
    }
  }
}
