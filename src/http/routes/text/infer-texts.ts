/**
 * `infer` with texts: an input `text` of BYTES instead of token ids, and `text_pair` beside it for pairs. The
 * output depends on the task of the model: sentence_embedding [n, size], or scores [n, labels].
 */
import { OnecopyError } from '../../../errors.js'
import type { ServedModel } from '../../../inference/service.js'
import type { ModelSpec } from '../../../protocol/v2/request.js'
import type { Tensor } from '../../../tensor.js'
import type { TextInput, TextModel } from '../../../text/text-model.js'

const TEXT = 'text'
const PAIR = 'text_pair'

/** Whether the JSON of a request names an input of texts, and none of token ids. */
export function namesTexts({
  body,
  jsonBytes,
}: {
  readonly body: Uint8Array
  readonly jsonBytes: number | null
}): boolean {
  if (jsonBytes === 0) return false
  const json = Buffer.from(
    body.buffer,
    body.byteOffset,
    Math.min(jsonBytes ?? body.byteLength, body.byteLength),
  )
  return json.includes(`"${TEXT}"`) && !json.includes('"input_ids"')
}

/** The same of the names of its inputs. */
export function areTexts(inputs: readonly { readonly name: string }[]): boolean {
  return inputs.some(({ name }) => name === TEXT) && !inputs.some(({ name }) => name === 'input_ids')
}

/** What a request of texts must look like; null where the model takes none, or the request has none. */
export function textSpecOf(
  model: ServedModel,
  hasTexts: () => boolean,
): (ModelSpec & { readonly text: TextModel }) | null {
  const { name, version, text } = model
  if (text === null || !hasTexts()) return null
  if (text.task === 'token-classification')
    throw new OnecopyError('REQUEST_INVALID', `model ${name}: entities of texts are found by POST /predict`)
  const { labels } = text.description
  const output =
    text.task === 'embedding'
      ? { name: 'sentence_embedding', datatype: 'FP32' as const, shape: [-1, text.dimensions ?? -1] }
      : { name: 'scores', datatype: 'FP32' as const, shape: [-1, labels.length] }
  const input = { datatype: 'BYTES' as const, shape: null }
  return {
    ...{ name, version, text },
    inputs: [
      { ...input, name: TEXT },
      { ...input, name: PAIR, optional: true },
    ],
    outputs: [output],
  }
}

function inputsOf(tensors: readonly Tensor[]): TextInput[] {
  const textsOf = (name: string) =>
    tensors.find((one) => one.name === name)?.data as readonly string[] | undefined
  const texts = textsOf(TEXT) ?? []
  const seconds = textsOf(PAIR)
  if (seconds === undefined) return [...texts]
  if (seconds.length === texts.length) return texts.map((text, i) => [text, seconds[i] as string] as const)
  throw new OnecopyError(
    'TENSOR_INVALID',
    `input "${PAIR}": expected ${texts.length} elements, as many as "${TEXT}" has, got ${seconds.length}`,
  )
}

function tensorOf(name: string, rows: readonly ArrayLike<number>[]): Tensor {
  const size = rows[0]?.length ?? 0
  const data = new Float32Array(rows.length * size)
  for (const [at, row] of rows.entries()) data.set(row, at * size)
  return { name, datatype: 'FP32', shape: [rows.length, size], data }
}

export interface TextScheduling {
  readonly isTruncated: boolean
  readonly isCancelled: () => boolean
  /** Time limit from now to the result; null is no limit. */
  readonly timeoutMs: number | null
}

/**
 * The output of a request with texts. Texts that are too long are truncated if its parameter `truncate` is
 * true.
 * @throws OnecopyError TENSOR_INVALID, DEADLINE_EXCEEDED, and the errors of TextModel.
 */
export async function inferTexts(
  spec: ModelSpec & { readonly text: TextModel },
  tensors: readonly Tensor[],
  { isTruncated, isCancelled, timeoutMs }: TextScheduling,
): Promise<Tensor[]> {
  if (timeoutMs === null) return await answer(spec, tensors, { isTruncated, isCancelled })
  let isLate = false
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      isLate = true
      reject(new OnecopyError('DEADLINE_EXCEEDED', `the deadline of ${timeoutMs} ms passed`))
    }, timeoutMs)
  })
  const answered = answer(spec, tensors, { isTruncated, isCancelled: () => isLate || isCancelled() })
  // Work that is not finished by then is dropped.
  answered.catch(() => {})
  try {
    return await Promise.race([answered, late])
  } finally {
    clearTimeout(timer)
  }
}

async function answer(
  { text, outputs }: ModelSpec & { readonly text: TextModel },
  tensors: readonly Tensor[],
  { isTruncated, isCancelled }: Omit<TextScheduling, 'timeoutMs'>,
): Promise<Tensor[]> {
  const inputs = inputsOf(tensors)
  const name = outputs[0]?.name as string
  const asked = { isTruncated, isCancelled }
  if (text.task === 'embedding') {
    const { results } = await text.embed(inputs, { ...asked, isNormalized: null, dimensions: null })
    return [tensorOf(name, results)]
  }
  const { results } = await text.classify(inputs, { ...asked, isRaw: false })
  const { labels } = text.description
  // In the order of the labels, not by score.
  const rows = results.map((scored) =>
    labels.map((label) => scored.find((one) => one.label === label)?.score ?? 0),
  )
  return [tensorOf(name, rows)]
}
