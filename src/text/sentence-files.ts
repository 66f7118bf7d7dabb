/** What sentence-transformers adds to a folder: the steps behind the transformer, the longest length, prompts. */
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type * as z from 'zod'
import type { Pooling } from '../token-pooling.js'
import type { DenseDescription } from './description.js'
import { invalid, readOptional, sha256OfFile } from './hub-files.js'
import {
  DenseFileSchema,
  ModulesSchema,
  PoolingFileSchema,
  PromptsSchema,
  SentenceConfigSchema,
} from './hub-schemas.js'

const MODULES_FILE = 'modules.json'
const WEIGHTS_FILE = 'model.safetensors'
const STEPS = ['Transformer', 'Pooling', 'Dense', 'Normalize'] as const
type Step = (typeof STEPS)[number]

export interface SentenceFiles {
  readonly pooling: Pooling | null
  readonly dense: readonly DenseDescription[]
  readonly isNormalized: boolean
  readonly maxLength: number | null
  readonly prompts: Readonly<Record<string, string>>
  readonly defaultPrompt: string | null
}

function poolingOf(file: z.output<typeof PoolingFileSchema>, path: string): Pooling {
  const modes = {
    pooling_mode_mean_tokens: 'mean',
    pooling_mode_cls_token: 'cls',
    pooling_mode_lasttoken: 'last',
    pooling_mode_max_tokens: 'max',
  } as const
  const chosen = Object.entries(modes).filter(([key]) => file[key as keyof typeof modes] === true)
  const [only] = chosen
  if (only !== undefined && chosen.length === 1) return only[1]
  const keys = chosen.map(([key]) => key).join(' and ') || 'none'
  throw invalid(path, `expected one pooling mode to be true (${Object.keys(modes).join(', ')}), got ${keys}`)
}

async function denseOf(folder: string, name: string): Promise<DenseDescription> {
  const config = join(name, 'config.json')
  const file = await readOptional(folder, config, DenseFileSchema)
  if (file === null) throw invalid(join(folder, config), 'expected a file, found none')
  const path = join(folder, name, WEIGHTS_FILE)
  if ((await stat(path).catch(() => null))?.isFile() !== true)
    throw invalid(path, 'expected the weights of the dense layer in this file, found none')
  return {
    weights: { path, sha256: await sha256OfFile(path) },
    inputs: file.in_features,
    outputs: file.out_features,
    hasBias: file.bias,
    activation: file.activation_function === 'torch.nn.modules.activation.Tanh' ? 'tanh' : 'none',
  }
}

/** `sentence_transformers.models.Pooling`: newer files have other modules in front of the same last part. */
function stepOf(type: string, place: number, path: string): Step {
  const step = STEPS.find((one) => type.startsWith('sentence_transformers.') && type.endsWith(`.${one}`))
  if (step !== undefined) return step
  throw invalid(path, `${place}.type: expected one of ${STEPS.join(', ')}, got ${JSON.stringify(type)}`)
}

/**
 * Null where the folder has no modules.json.
 * @throws OnecopyError REPOSITORY_INVALID naming file and key.
 */
export async function readSentenceFiles(folder: string): Promise<SentenceFiles | null> {
  const path = join(folder, MODULES_FILE)
  const modules = await readOptional(folder, MODULES_FILE, ModulesSchema)
  if (modules === null) return null
  let pooling: Pooling | null = null
  const dense: DenseDescription[] = []
  let isNormalized = false
  let last = -1
  for (const [place, { type, path: name }] of modules.entries()) {
    const step = stepOf(type, place, path)
    const order = STEPS.indexOf(step)
    if (order < last || (order === last && step !== 'Dense'))
      throw invalid(
        path,
        `${place}.type: expected ${STEPS.join(', ')} in this order, got ${step} after ${STEPS[last]}`,
      )
    last = order
    if (name.startsWith('/') || name.split('/').includes('..'))
      throw invalid(path, `${place}.path: expected a folder inside the model's, got ${JSON.stringify(name)}`)
    if (step === 'Transformer' && name !== '')
      throw invalid(
        path,
        `${place}.path: is not supported: expected the transformer in the folder itself, got ${JSON.stringify(name)}`,
      )
    if (step === 'Pooling') {
      const config = join(name, 'config.json')
      const file = await readOptional(folder, config, PoolingFileSchema)
      if (file === null) throw invalid(join(folder, config), 'expected a file, found none')
      pooling = poolingOf(file, join(folder, config))
    }
    if (step === 'Dense') dense.push(await denseOf(folder, name))
    if (step === 'Normalize') isNormalized = true
  }
  const limits = await readOptional(folder, 'sentence_bert_config.json', SentenceConfigSchema)
  const settings = await readOptional(folder, 'config_sentence_transformers.json', PromptsSchema)
  const prompts = Object.entries(settings?.prompts ?? {}).filter(
    (one): one is [string, string] => one[1] !== null,
  )
  return {
    ...{ pooling, dense, isNormalized },
    maxLength: limits?.max_seq_length ?? null,
    prompts: Object.fromEntries(prompts),
    defaultPrompt: settings?.default_prompt_name ?? null,
  }
}
