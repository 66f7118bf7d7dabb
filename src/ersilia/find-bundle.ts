/** Where a bundle stands, from the paths that people and run.sh have. */
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { OnecopyError } from '../errors.js'

/** Relative to the bundle: what its code and texts stand in. */
export const FRAMEWORK = join('model', 'framework')

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() === true
}

/**
 * The folder that `model/` stands in, from any path that people or run.sh have: the bundle, its framework, the
 * folder of a packed model.
 * @throws OnecopyError BUNDLE_INVALID.
 */
export async function findBundle(path: string): Promise<string> {
  const at = resolve(path)
  if (await isFolder(join(at, FRAMEWORK))) return at
  if (basename(at) === 'framework' && basename(dirname(at)) === 'model' && (await isFolder(at)))
    return dirname(dirname(at))
  // The names begin with dates: the newest packed is the last.
  for (const name of (await readdir(at).catch(() => [])).sort().reverse()) {
    if (await isFolder(join(at, name, FRAMEWORK))) return join(at, name)
  }
  throw new OnecopyError(
    'BUNDLE_INVALID',
    `expected ${at} to be an Ersilia bundle, with a folder ${FRAMEWORK}`,
  )
}
