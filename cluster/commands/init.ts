/**
 * `onecopy init MODEL.onnx`: writes a config for a model from its shapes and its compilation, and explains
 * each key.
 */
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { withCompiled } from '../../src/compile/temporary-image.js'
import { wrap } from '../../src/config/help.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { readModelConfig } from '../../src/repository/config.js'
import { checkName, modelPathOf } from '../../src/repository/model-path.js'
import { configText, type SuggestedKey, suggestConfig } from '../../src/repository/suggest.js'
import { COMPILE_TIMEOUT_MS, commandLine, modelFileOf, usageError } from './arguments.js'
import { untilInterrupted } from './interruptible.js'

interface Options {
  readonly modelPath: string
  readonly configPath: string
  readonly force: boolean
}

function readOptions(argv: readonly string[]): Options {
  const { values, positionals } = commandLine('init', argv)
  const { output } = values
  const force = values.force === 'on'
  const modelPath = modelFileOf(positionals, 'init')
  if (!modelPath.endsWith('.onnx')) throw usageError(`expected NAME.onnx, got ${modelPath}`, 'init')
  const place = modelPathOf(modelPath)
  checkName(place.name, modelPath)
  if (output === '') throw usageError('--output: expected a folder', 'init')
  const configPath =
    output === undefined ? place.configPath : join(resolve(output), place.name, 'config.json')
  if (!force && existsSync(configPath)) throw isThere(configPath)
  return { modelPath, configPath, force }
}

function isThere(configPath: string): OnecopyError {
  return usageError(`${configPath} already exists: --force overwrites it`, 'init')
}

async function write({ configPath, force }: Options, keys: readonly SuggestedKey[]): Promise<void> {
  try {
    await mkdir(dirname(configPath), { recursive: true })
    await writeFile(configPath, configText(keys), { flag: force ? 'w' : 'wx' })
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') throw isThere(configPath)
    throw new OnecopyError('CONFIG_INVALID', `cannot write ${configPath}: ${messageOf(thrown)}`)
  }
  // The written config must be valid for `serve`.
  await readModelConfig(configPath)
}

/** A key and its value, then its effect and possible changes. */
function keyText({ key, valueText, does, change }: SuggestedKey): string {
  const indent = '    '
  const lines = [does, change].flatMap((text) => wrap(text, 80 - indent.length))
  return [`${key}: ${valueText}`, ...lines.map((line) => indent + line)].join('\n')
}

/** Runs `onecopy init`; resolves with the exit code. */
export async function runInit(argv: readonly string[]): Promise<number> {
  const options = readOptions(argv)
  return await untilInterrupted(
    async (signal) => {
      const limits = { timeoutMs: COMPILE_TIMEOUT_MS, signal }
      const keys = await withCompiled(options.modelPath, limits, async ({ header }) => suggestConfig(header))
      await write(options, keys)
      const list = keys.map(keyText).join('\n')
      process.stdout.write(
        `wrote ${options.configPath}\n\n${list}\n\nKeys in brackets are left out: the option of the server applies.\n`,
      )
    },
    () => {},
  )
}
