/** The part of `onecopy inspect` for text models: how the folder was interpreted. */
import { link, readFile, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { messageOf } from '../../src/errors.js'
import { readModelConfig, type ServedModelConfig } from '../../src/repository/config.js'
import { kindOf } from '../../src/repository/file-kind.js'
import { textPathOf } from '../../src/repository/model-path.js'
import { SEGMENT_FILE_NAME, type SegmentHeader } from '../../src/segment/layout.js'
import { probePadding } from '../../src/sharing/probe.js'
import type { TextDescription } from '../../src/text/description.js'
import { isTextFolder, readTextFolder } from '../../src/text/folder.js'
import { type TextInterface, textInterface } from '../../src/text/interface.js'
import { modelFileOf } from '../../src/text/model-files.js'
import { PADDING_TOLERANCE } from '../../src/text/padding-check.js'
import { TextTokenizer } from '../../src/transform/tokenizer-library.js'
import { formatBytes } from '../../src/units.js'

/** The folder of a text model, and the inspected file. */
export interface TextFolder {
  readonly folder: string
  readonly name: string
  readonly modelPath: string
  /** As `serve` reads it. */
  readonly config: ServedModelConfig
  /** Null where there is no file. */
  readonly configPath: string | null
}

export interface TextInspection extends Omit<TextDescription, 'tokenizer' | 'dense'> {
  readonly folder: string
  /** The config whose settings are included; null where there is none. */
  readonly configPath: string | null
  /** Sizes of the dense layers after the pooling. */
  readonly dense: readonly (readonly [inputs: number, outputs: number])[]
  /** The output that contains the results of texts. */
  readonly output: string | null
  /** Why the graph does not match the folder; null if it does. */
  readonly problem: string | null
  /** Which texts share a batch, and why; null if the model is not served. */
  readonly together: {
    readonly texts: 'all' | 'of one length' | 'none' | 'unknown'
    readonly reason: string
  } | null
}

/**
 * A folder with a tokenizer, and the file that was named in it; null: the one that the config
 * chooses.
 */
export interface TextPlace {
  readonly folder: string
  readonly file: string | null
}

/**
 * A text model by its folder, or by an ONNX file in it or in its `onnx/`; null for anything else.
 */
export async function textPlaceOf(given: string): Promise<TextPlace | null> {
  const path = resolve(given)
  const found = await stat(path).catch(() => null)
  if (found?.isDirectory() === true) return (await isTextFolder(path)) ? { folder: path, file: null } : null
  for (const folder of [dirname(path), dirname(dirname(path))])
    if (found !== null && (await isTextFolder(folder))) return { folder, file: path }
  return null
}

/** @throws OnecopyError REPOSITORY_INVALID if the config is not as expected. */
export async function readTextPlace({ folder, file }: TextPlace): Promise<TextFolder> {
  const { name, configPath } = textPathOf(folder)
  const config = await readModelConfig(configPath)
  const { kind } = await kindOf(configPath)
  return {
    ...{ folder, name, config, configPath: kind === 'absent' ? null : configPath },
    modelPath: file ?? (await modelFileOf(folder, config.textOverrides.file)),
  }
}

interface Compiled {
  readonly header: Pick<SegmentHeader, 'inputs' | 'outputs' | 'batching'>
  readonly imagePath: string
  readonly signal: AbortSignal
}

/** @throws OnecopyError REPOSITORY_INVALID naming file and key. */
export async function inspectText(
  { folder, config, configPath }: TextFolder,
  compiled: Compiled,
): Promise<TextInspection> {
  const { signal } = compiled
  const whole = await readTextFolder(folder, config.textOverrides)
  const { tokenizer: _, dense, ...description } = whole
  const sizes = dense.map((one) => [one.inputs, one.outputs] as const)
  const common = { folder, configPath, ...description, dense: sizes }
  try {
    const text = textInterface(description, compiled.header)
    const together = await togetherOf(whole, { ...compiled, text, config }).catch((thrown) => {
      signal.throwIfAborted()
      return { texts: 'unknown' as const, reason: messageOf(thrown) }
    })
    return { ...common, output: text.output.name, problem: null, together }
  } catch (thrown) {
    signal.throwIfAborted()
    return { ...common, output: null, problem: messageOf(thrown), together: null }
  }
}

/** Why texts run one by one; null if they may be together. */
function aloneReason(
  { batching, maxBatchSize }: ServedModelConfig,
  header: Pick<SegmentHeader, 'batching'>,
): string | null {
  if (batching === false) return '"batching" is false in the config'
  if (maxBatchSize === 1) return '"max_batch_size" is 1 in the config'
  return batching === true || header.batching.batchable ? null : header.batching.reason
}

/** The result of the check that a worker runs when it loads the model. */
async function togetherOf(
  { tokenizer, maxLength, paddingId, truncationSide }: TextDescription,
  options: Compiled & { readonly text: TextInterface; readonly config: ServedModelConfig },
): Promise<TextInspection['together']> {
  const { text, config, header, imagePath, signal } = options
  const alone = aloneReason(config, header)
  if (alone !== null) return { texts: 'none', reason: alone }
  const json = await readFile(tokenizer.path, 'utf8')
  const { vocabularySize } = TextTokenizer.open({ json, maxLength, truncationSide })
  const check = { textInterface: text, paddingId, maxLength, vocabularySize }
  // The graph refers to its external weights by this file name.
  const path = join(dirname(imagePath), SEGMENT_FILE_NAME)
  await link(imagePath, path)
  const problem = await probePadding(path, check, signal).finally(() => rm(path, { force: true }))
  if (problem !== null) return { texts: 'of one length', reason: problem }
  return {
    texts: 'all',
    reason: `padding changes no result by more than ${PADDING_TOLERANCE} of its largest element`,
  }
}

function named(values: readonly string[]): string {
  const shown = values.slice(0, 8).join(', ')
  return values.length > 8 ? `${shown} and ${values.length - 8} more` : shown
}

function togetherText({ texts, reason }: NonNullable<TextInspection['together']>): string {
  if (texts === 'all') return `yes, of any length: ${reason}`
  if (texts === 'unknown') return `the check failed: ${reason}`
  return texts === 'none' ? `no, one at a time: ${reason}` : `only texts of equal length: ${reason}`
}

/** Rows of the table of facts. */
export function textRows(text: TextInspection): [string, string][] {
  const { task, taskReason, configPath, output, isNormalized, dense, labels, prompts } = text
  const steps = [
    output === 'sentence_embedding' ? 'by the graph (sentence_embedding)' : `${text.pooling} over tokens`,
    ...dense.map(([inputs, outputs]) => `dense ${inputs} to ${outputs}`),
    ...(isNormalized ? ['normalised'] : []),
  ]
  const tokenizer = `${formatBytes(text.tokenizerBytes)} in every worker, estimated`
  const promptNames = Object.keys(prompts)
  return [
    ['text model', `${task}: ${taskReason}`],
    ...(configPath === null ? [] : [['config', configPath] as [string, string]]),
    [
      'longest text',
      `${text.maxLength} tokens; longer texts are truncated at the ${text.truncationSide === 'left' ? 'start' : 'end'} on request`,
    ],
    ['tokenizer', tokenizer],
    ...(task === 'embedding' ? [['vectors', steps.join(', then ')] as [string, string]] : []),
    ...(labels.length > 0 ? [['labels', `${named(labels)} (${text.activation})`] as [string, string]] : []),
    ...(promptNames.length > 0 ? [['prompts', named(promptNames)] as [string, string]] : []),
    ...(text.together === null ? [] : [['text batches', togetherText(text.together)] as [string, string]]),
    ...(text.problem === null ? [] : [['not served', text.problem] as [string, string]]),
  ]
}
