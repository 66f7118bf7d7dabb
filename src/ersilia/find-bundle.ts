/** Finds the root folder of a bundle from related paths. */
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { OnecopyError } from '../errors.js'

/** Relative to the bundle: the folder with its code and texts. */
export const FRAMEWORK = join('model', 'framework')

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() === true
}

/**
 * The folder that contains `model/`, found from the bundle itself, its framework folder, or the folder of a
 * packed model.
 * @throws OnecopyError BUNDLE_INVALID.
 */
export async function findBundle(path: string): Promise<string> {
  const at = resolve(path)
  if (await isFolder(join(at, FRAMEWORK))) return at
  if (basename(at) === 'framework' && basename(dirname(at)) === 'model' && (await isFolder(at)))
    return dirname(dirname(at))
  // The names start with dates, so the last one is the newest.
  for (const name of (await readdir(at).catch(() => [])).sort().reverse()) {
    if (await isFolder(join(at, name, FRAMEWORK))) return join(at, name)
  }
  throw new OnecopyError(
    'BUNDLE_INVALID',
    `expected ${at} to be an Ersilia bundle, with a folder ${FRAMEWORK}`,
  )
}
