/** `onecopy init MODEL.onnx`: a config for a model, made from its shapes and from what compiling it found out, with a word on each key. */
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { withCompiled } from '../../src/compile/one-off.js'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { readModelConfig } from '../../src/repository/config.js'
import { checkName, placeOf } from '../../src/repository/place.js'
import { configText, type SuggestedKey, suggestConfig } from '../../src/repository/suggest.js'
import { COMPILE_TIMEOUT_MS, modelFileOf, usageError } from './arguments.js'
import { tableOf } from './inspection-text.js'
import { untilInterrupted } from './interruptible.js'

export const INIT_HELP = `Usage: onecopy init MODEL.onnx [options]

Compiles a model, writes a config made from its shapes and from what was found out about batching, and says what each
key does and why one might change it. Without --output the config stands where the repository around the model expects
it: NAME/config.json for NAME/VERSION/model.onnx, NAME.config.json for NAME.onnx, config.json for a single model.onnx.

Options:
  --output DIR  Write DIR/NAME/config.json instead
  --force       Overwrite a config that is there`

interface Options {
  readonly modelPath: string
  readonly configPath: string
  readonly force: boolean
}

function readOptions(argv: readonly string[]): Options {
  let parsed: { values: { output?: string; force?: boolean }; positionals: string[] }
  try {
    const options = { output: { type: 'string' as const }, force: { type: 'boolean' as const } }
    parsed = parseArgs({ args: [...argv], options, strict: true, allowPositionals: true })
  } catch (thrown) {
    throw usageError(messageOf(thrown), 'init')
  }
  const { output, force = false } = parsed.values
  const modelPath = modelFileOf(parsed.positionals, 'init')
  if (!modelPath.endsWith('.onnx')) throw usageError(`expected NAME.onnx, got ${modelPath}`, 'init')
  const place = placeOf(modelPath)
  checkName(place.name, modelPath)
  if (output === '') throw usageError('--output: expected a folder', 'init')
  const configPath =
    output === undefined ? place.configPath : join(resolve(output), place.name, 'config.json')
  if (!force && existsSync(configPath)) throw isThere(configPath)
  return { modelPath, configPath, force }
}

function isThere(configPath: string): OnecopyError {
  return usageError(`${configPath} is there already: --force overwrites it`, 'init')
}

async function write({ configPath, force }: Options, keys: readonly SuggestedKey[]): Promise<void> {
  try {
    await mkdir(dirname(configPath), { recursive: true })
    await writeFile(configPath, configText(keys), { flag: force ? 'w' : 'wx' })
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'EEXIST') throw isThere(configPath)
    throw new OnecopyError('CONFIG_INVALID', `expected to write ${configPath}: ${messageOf(thrown)}`)
  }
  // Whatever was written, `serve` must be able to read it.
  await readModelConfig(configPath)
}

/** Runs `onecopy init`; resolves with the exit code. */
export async function runInit(argv: readonly string[]): Promise<number> {
  const options = readOptions(argv)
  return await untilInterrupted(
    async (signal) => {
      const limits = { timeoutMs: COMPILE_TIMEOUT_MS, signal }
      const keys = await withCompiled(options.modelPath, limits, async ({ header }) => suggestConfig(header))
      await write(options, keys)
      const rows = keys.map(({ key, valueText, does, change }) => [key, valueText, does, change])
      const table = tableOf(['key', 'value', 'what it does', 'what could be changed'], rows, [23, 18, 44, 44])
      process.stdout.write(
        `wrote ${options.configPath}\n${table}\nKeys in brackets are left out: the server's own option holds.\n`,
      )
    },
    () => {},
  )
}
