/** Derives the name and version of a model from the path of its file. */
import { basename, dirname, join, resolve } from 'node:path'
import { OnecopyError } from '../errors.js'
import { VERSION_PATTERN } from './config.js'

/**
 * Letters, digits, dots, underscores and hyphens; no leading dot; at most 128 characters. Safe in
 * paths and URLs.
 */
export const MODEL_NAME_PATTERN = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/
export const MODEL_FILE = 'model.onnx'
export const CONFIG_FILE = 'config.json'

/** Name and version of a model file in a repository, and the path of its config. */
export interface ModelPath {
  readonly name: string
  readonly version: string
  readonly configPath: string
}

/** The name and version that a repository layout gives to this file. The name is not validated. */
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

/**
 * The name and version that a repository layout gives to this folder of a text model. The name is
 * not validated.
 */
export function textPathOf(textFolder: string): ModelPath {
  const path = resolve(textFolder)
  const folder = dirname(path)
  const name = basename(path)
  // The folder's own config.json is the model's; that of the operator is beside it.
  if (!VERSION_PATTERN.test(name))
    return { name, version: '1', configPath: join(folder, `${name}.${CONFIG_FILE}`) }
  return { name: basename(folder), version: name, configPath: join(folder, CONFIG_FILE) }
}

/** Why a model with this name cannot be served; null if it can. */
export function nameProblem(name: string, path: string): string | null {
  if (MODEL_NAME_PATTERN.test(name)) return null
  return (
    `model name ${JSON.stringify(name)} (${path}): expected 1 to 128 letters, digits, dots, underscores or hyphens, ` +
    'not starting with a dot; a name cannot contain "/"'
  )
}

/** @throws OnecopyError REPOSITORY_INVALID if a model with this name cannot be served. */
export function checkName(name: string, path: string): void {
  const problem = nameProblem(name, path)
  if (problem !== null) throw new OnecopyError('REPOSITORY_INVALID', problem)
}
