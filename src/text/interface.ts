/** How token sequences go into a graph, and which of its outputs a task reads. */
import { OnecopyError } from '../errors.js'
import type { Tensor, TensorSpec } from '../tensor.js'
import { requiredOf } from '../tensor.js'
import type { Pooling, TokenPooling } from '../token-pooling.js'
import type { TextDescription } from './description.js'

export interface Sequence {
  readonly ids: readonly number[]
  readonly typeIds: readonly number[]
}

type Fill = (sequence: Sequence, place: number) => number

/** Value of each input at a place of a sequence. After the end of the sequence it is 0, except for ids. */
const INPUTS: Readonly<Record<string, Fill>> = {
  input_ids: ({ ids }, place) => ids[place] as number,
  attention_mask: () => 1,
  token_type_ids: ({ typeIds }, place) => typeIds[place] as number,
  position_ids: (_, place) => place,
}

/** Names of outputs with one state for each token, the most common first. */
const STATES = ['last_hidden_state', 'token_embeddings', 'hidden_states']

export interface TextInterface {
  /** In the graph's order. */
  readonly inputs: readonly TensorSpec[]
  readonly output: TensorSpec
  /** Pooling of token states to the vector of a text; null if the output is used directly. */
  readonly pooling: Pooling | null
}

function unsupported(message: string): OnecopyError {
  return new OnecopyError('MODEL_UNSUPPORTED', message)
}

function outputOf(
  task: TextDescription['task'],
  outputs: readonly TensorSpec[],
): { readonly output: TensorSpec | undefined; readonly rank: number; readonly expected: string } {
  const named = (name: string) => outputs.find((one) => one.name === name)
  if (task === 'embedding') {
    const pooled = named('sentence_embedding')
    if (pooled !== undefined) return { output: pooled, rank: 2, expected: 'sentence_embedding' }
    const states = STATES.map(named).find((one) => one !== undefined)
    const first = outputs.find(({ shape }) => shape?.length === 3)
    return { output: states ?? first, rank: 3, expected: `sentence_embedding or ${STATES.join(', ')}` }
  }
  const rank = task === 'token-classification' ? 3 : 2
  const first = outputs.find(({ shape }) => shape?.length === rank)
  return { output: named('logits') ?? first, rank, expected: 'logits' }
}

/** @throws OnecopyError MODEL_UNSUPPORTED naming the input or output that is not as expected. */
export function textInterface(
  { task, labels, pooling }: Pick<TextDescription, 'task' | 'labels' | 'pooling'>,
  model: { readonly inputs: readonly TensorSpec[]; readonly outputs: readonly TensorSpec[] },
): TextInterface {
  const inputs = requiredOf(model.inputs)
  for (const { name, datatype, shape } of inputs) {
    if (!Object.hasOwn(INPUTS, name))
      throw unsupported(`input ${JSON.stringify(name)}: a text model has ${Object.keys(INPUTS).join(', ')}`)
    if (datatype !== 'INT64' && datatype !== 'INT32')
      throw unsupported(`input ${name}: expected INT64 or INT32, got ${datatype}`)
    if (shape !== null && shape.length !== 2)
      throw unsupported(`input ${name}: expected [batch, sequence], got [${shape.join(', ')}]`)
    if (shape !== null && shape[1] !== -1)
      throw unsupported(`input ${name}: expected a variable length, got [${shape.join(', ')}]`)
  }
  if (!inputs.some(({ name }) => name === 'input_ids'))
    throw unsupported('expected an input input_ids, found none')
  const { output, rank, expected } = outputOf(task, model.outputs)
  if (output === undefined) throw unsupported(`expected an output ${expected} for ${task}, found none`)
  if (output.datatype !== 'FP32' && output.datatype !== 'FP16')
    throw unsupported(`output ${output.name}: expected FP32 or FP16, got ${output.datatype}`)
  if (output.shape !== null && output.shape.length !== rank)
    throw unsupported(`output ${output.name}: expected ${rank} dimensions, got [${output.shape.join(', ')}]`)
  const last = output.shape?.at(-1) ?? -1
  if (labels.length > 0 && last !== -1 && last !== labels.length)
    throw unsupported(
      `output ${output.name}: expected a logit for each of the ${labels.length} labels in config.json, got ${last}`,
    )
  return { inputs, output, pooling: task === 'embedding' && rank === 3 ? pooling : null }
}

/** The pooling of these sequences as a part of a job; empty if the output is used directly. */
export function poolingOf(
  { pooling }: Pick<TextInterface, 'pooling'>,
  sequences: readonly Sequence[],
): { readonly pooling?: TokenPooling } {
  return pooling === null
    ? {}
    : { pooling: { kind: pooling, lengths: sequences.map(({ ids }) => ids.length) } }
}

/** The tensors of sequences side by side, all as long as the longest. */
export function paddedInputs(
  { inputs }: Pick<TextInterface, 'inputs'>,
  sequences: readonly Sequence[],
  paddingId: number,
): Tensor[] {
  const longest = Math.max(...sequences.map(({ ids }) => ids.length))
  const shape = [sequences.length, longest]
  return inputs.map(({ name, datatype }) => {
    const fill = INPUTS[name] as Fill
    const padding = name === 'input_ids' ? paddingId : 0
    if (datatype === 'INT32') {
      const data = new Int32Array(sequences.length * longest).fill(padding)
      for (const [row, sequence] of sequences.entries())
        for (let i = 0; i < sequence.ids.length; i++) data[row * longest + i] = fill(sequence, i)
      return { name, datatype, shape, data }
    }
    const data = new BigInt64Array(sequences.length * longest)
    // As pairs of 32 bits, the low half first: no object for a number.
    const halves = new Int32Array(data.buffer)
    for (const [row, sequence] of sequences.entries())
      for (let i = 0; i < longest; i++)
        halves[2 * (row * longest + i)] = i < sequence.ids.length ? fill(sequence, i) : padding
    return { name, datatype, shape, data }
  })
}
