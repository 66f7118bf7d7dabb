/** How a model is called by where its file stands in a repository. */
import { basename, dirname, join, resolve } from 'node:path'
import { OnecopyError } from '../errors.js'
import { VERSION_PATTERN } from './config.js'

/** Letters, digits, dot, underscore, hyphen; not starting with a dot; at most 128: safe in paths and URLs. */
export const MODEL_NAME_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/
export const MODEL_FILE = 'model.onnx'
export const CONFIG_FILE = 'config.json'

/** Where a model file stands in a repository, and where its config does. */
export interface ModelPath {
  readonly name: string
  readonly version: string
  readonly configPath: string
}

/** How a repository that this very file stands in calls it. Whether the name can be served is not checked. */
export function modelPathOf(modelPath: string): ModelPath {
  const path = resolve(modelPath)
  const folder = dirname(path)
  if (basename(path) !== MODEL_FILE) {
    const name = basename(path, '.onnx')
    return { name, version: '1', configPath: join(folder, `${name}.${CONFIG_FILE}`) }
  }
  const version = basename(folder)
  if (!VERSION_PATTERN.test(version))
    return { name: basename(folder), version: '1', configPath: join(folder, CONFIG_FILE) }
  return { name: basename(dirname(folder)), version, configPath: join(dirname(folder), CONFIG_FILE) }
}

/** Why a model of this name cannot be served; null where it can. */
export function nameProblem(name: string, path: string): string | null {
  if (MODEL_NAME_PATTERN.test(name)) return null
  return (
    `model name ${JSON.stringify(name)} (${path}): expected 1 to 128 letters, digits, dots, underscores or hyphens, ` +
    'not starting with a dot; a name cannot hold "/"'
  )
}

/** @throws OnecopyError REPOSITORY_INVALID where a model of this name cannot be served. */
export function checkName(name: string, path: string): void {
  const problem = nameProblem(name, path)
  if (problem !== null) throw new OnecopyError('REPOSITORY_INVALID', problem)
}
