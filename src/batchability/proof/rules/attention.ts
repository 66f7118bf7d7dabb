/**
 * Attention, fused or not, and related transformer operators. The batch is the first dimension, and masks
 * follow it.
 */
import { requireFollows, requireStretched, unknownShape } from '../broadcast.js'
import {
  constantInput,
  firstRows,
  input,
  inputsFrom,
  type Operator,
  optional,
  type Rule,
  requireConstants,
} from '../operator.js'
import { literal, literalOf, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  combined,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
  type Value,
} from '../values.js'

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

/**
 * The tensor that all others must follow: rows along the first of `ranks` dimensions. Null if no input has
 * rows.
 */
function leader(operator: Operator, ranks: readonly number[], index = 0): Rows | null {
  if (firstRows(inputsFrom(operator)) === null) return null
  const value = input(operator, index)
  if (value.kind !== 'rows' || value.axis !== 0 || !ranks.includes(value.shape.length)) {
    throw new Prevented('attends across rows: the batch is not its first dimension', REMEDY.batchFirst)
  }
  return value
}

function without(operator: Operator): Value[] {
  const same = combined(inputsFrom(operator), null)
  return Array(operator.outputCount).fill(same)
}

function follow(operator: Operator, holder: Rows, axes: Readonly<Record<number, number>>): void {
  for (const [index, axis] of Object.entries(axes)) {
    requireFollows(optional(operator, Number(index)), holder, { axis, what: 'inputs' })
  }
}

/** A bias or mask that broadcasts over the first of `rank` dimensions, or follows it. */
function followOrStretch(
  operator: Operator,
  holder: Rows,
  { index, rank }: { index: number; rank: number },
): void {
  const value = optional(operator, index)
  if (value === null) return
  if (value.kind === 'constant') requireStretched(value, rank)
  else {
    if (value.shape?.length !== rank)
      throw new Prevented('has a mask that does not follow the batch', REMEDY.batchFirst)
    requireFollows(value, holder, { axis: 0, what: 'masks' })
  }
}

/** Rows with another width, and past keys and values, whose sizes no proof needs. */
function attended(operator: Operator, holder: Rows, width: Size): Value[] {
  const { sizes } = operator
  const shape = holder.shape.map((size, i) => (i === holder.shape.length - 1 ? width : size))
  const cache = [ONE, sizes.fresh(), sizes.fresh(), sizes.fresh()]
  return [
    rows(sizes, shape, holder),
    rows(sizes, cache, holder),
    rows(sizes, cache, holder),
    rows(sizes, cache, holder),
  ]
}

/** input, weights, bias, mask_index, past, attention_bias, past_sequence_length */
const attention: Rule = (operator) => {
  const { sizes, attributes } = operator
  const holder = leader(operator, [3])
  if (holder === null) return without(operator)
  requireConstants(operator, [1, 2, 6], 'weights')
  // A one-dimensional mask with more elements than rows contains ends, then starts.
  follow(operator, holder, { 3: 0, 4: 1 })
  followOrStretch(operator, holder, { index: 5, rank: 4 })
  const weights = shapeOf(input(operator, 1))
  const whole = weights[1] === undefined ? null : literalOf(weights[1])
  const isEven = whole !== null && whole % 3 === 0 && (attributes.ints('qkv_hidden_sizes') ?? []).length === 0
  const width = isEven ? literal(whole / 3) : sizes.fresh()
  const [out] = attended(operator, holder, width)
  const present = rows(sizes, [literal(2), ONE, sizes.fresh(), sizes.fresh(), sizes.fresh()], {
    ...holder,
    axis: 1,
  })
  return [out as Value, present]
}

/** input, weight, bias, scales, mask_index, zero points, past: like `attention`, but quantised. */
const quantisedAttention: Rule = (operator) => {
  const { sizes } = operator
  const holder = leader(operator, [3])
  if (holder === null) return without(operator)
  requireConstants(operator, [1, 2, 3, 4, 6, 7], 'weights and scales')
  follow(operator, holder, { 5: 0, 8: 1 })
  const weights = shapeOf(input(operator, 1))
  const whole = weights[1] === undefined ? null : literalOf(weights[1])
  const width = whole !== null && whole % 3 === 0 ? literal(whole / 3) : sizes.fresh()
  const present = rows(sizes, [literal(2), ONE, sizes.fresh(), sizes.fresh(), sizes.fresh()], {
    ...holder,
    axis: 1,
  })
  return [attended(operator, holder, width)[0] as Value, present]
}

/**
 * query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value, past_sequence_length, ...
 */
const multiHead: Rule = (operator) => {
  const holder = leader(operator, [3])
  if (holder === null) return without(operator)
  requireConstants(operator, [3, 8, 9], 'settings')
  follow(operator, holder, { 1: 0, 2: 0, 4: 0, 6: 0, 7: 0 })
  followOrStretch(operator, holder, { index: 5, rank: 4 })
  const value = optional(operator, 2)
  const width = value?.shape?.length === 3 ? (value.shape[2] as Size) : operator.sizes.fresh()
  return attended(operator, holder, width)
}

/**
 * query, key, value, past_key, past_value, seqlens_k, total_sequence_length, cos, sin, position_ids, bias,
 * sink
 */
const groupQuery: Rule = (operator) => {
  const { sizes } = operator
  const holder = leader(operator, [3])
  if (holder === null) return without(operator)
  requireConstants(operator, [6, 7, 8, 11], 'settings')
  follow(operator, holder, { 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 9: 0 })
  followOrStretch(operator, holder, { index: 10, rank: 4 })
  // Without a key, the first input contains query, key and value.
  const width = optional(operator, 1) === null ? sizes.fresh() : (holder.shape[2] as Size)
  return attended(operator, holder, width)
}

/** Q, K, V, attn_mask, past_key, past_value, nonpad_kv_seqlen */
const standard: Rule = (operator) => {
  const { sizes } = operator
  const holder = leader(operator, [3, 4])
  if (holder === null) return without(operator)
  follow(operator, holder, { 1: 0, 2: 0, 4: 0, 5: 0, 6: 0 })
  followOrStretch(operator, holder, { index: 3, rank: 4 })
  const isFlat = holder.shape.length === 3
  const width = isFlat ? sizes.fresh() : (shapeOf(input(operator, 2)).at(-1) as Size)
  return attended(operator, holder, width)
}

/** input_ids, segment_ids, three tables, gamma, beta, mask, position_ids */
const embedding: Rule = (operator) => {
  const { sizes } = operator
  const holder = leader(operator, [2])
  if (holder === null) return without(operator)
  requireConstants(operator, [2, 3, 4, 5, 6], 'tables')
  follow(operator, holder, { 1: 0, 7: 0 })
  followOrStretch(operator, holder, { index: 8, rank: 2 })
  const width = shapeOf(constantInput(operator, 2, 'table'))[1] ?? sizes.fresh()
  const whole = rows(sizes, [...holder.shape, width], holder)
  return [whole, rows(sizes, [ONE], holder), whole]
}

function rotated(
  operator: Operator,
  { positions, tables }: { positions: number; tables: readonly number[] },
): Value[] {
  const holder = leader(operator, [3, 4])
  if (holder === null) return without(operator)
  const ids = optional(operator, positions)
  if (ids?.kind === 'rows' || ids?.kind === 'count') {
    requireFollows(ids, holder, { axis: 0, what: 'positions' })
    // A single number is an offset for all rows.
    if (ids.shape?.length !== 2) throw unknownShape()
    requireConstants(operator, tables, 'tables')
  } else if (ids !== null) {
    // One offset, or one list of positions, for all rows.
    requireStretched(ids, Math.max(1, ids.shape?.length ?? 0))
    requireConstants(operator, tables, 'tables')
  } else for (const index of tables) followOrStretch(operator, holder, { index, rank: 3 })
  return [holder]
}

/** input, position_ids, cos_cache, sin_cache */
const rotary: Rule = (operator) => rotated(operator, { positions: 1, tables: [2, 3] })
/** X, cos_cache, sin_cache, position_ids */
const standardRotary: Rule = (operator) => rotated(operator, { positions: 3, tables: [1, 2] })

const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'
const SPEC = 'https://onnx.ai/onnx/operators/onnx__'

const FOLLOWS = 'The batch is the first dimension; masks, keys and values follow it.'

export const ATTENTION: readonly OperatorRule[] = [
  { says: FOLLOWS, source: CONTRIB, operators: ['com.microsoft.Attention'], rule: attention },
  { says: FOLLOWS, source: CONTRIB, operators: ['com.microsoft.QAttention'], rule: quantisedAttention },
  { says: FOLLOWS, source: CONTRIB, operators: ['com.microsoft.MultiHeadAttention'], rule: multiHead },
  { says: FOLLOWS, source: CONTRIB, operators: ['com.microsoft.GroupQueryAttention'], rule: groupQuery },
  { says: FOLLOWS, source: `${SPEC}Attention.html`, operators: ['Attention'], rule: standard },
  {
    says: 'Rows of ids into constant tables; masks and positions follow the batch.',
    source: CONTRIB,
    operators: ['com.microsoft.EmbedLayerNormalization'],
    rule: embedding,
  },
  {
    says: 'The batch is the first dimension; positions follow it, or are the same for all rows.',
    source: CONTRIB,
    operators: ['com.microsoft.RotaryEmbedding'],
    rule: rotary,
  },
  {
    says: 'The batch is the first dimension; positions follow it, or are the same for all rows.',
    source: `${SPEC}RotaryEmbedding.html`,
    operators: ['RotaryEmbedding'],
    rule: standardRotary,
  },
]
