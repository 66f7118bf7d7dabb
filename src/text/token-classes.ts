/**
 * Named parts of a text out of the logits of its tokens: aggregation by words and by tags with B- and I- in front.
 * Source: the token classification pipeline of transformers, https://huggingface.co/docs/transformers/main_classes/pipelines
 */
import type { Located } from '../transform/tokenizer-library.js'
import { softmax } from './scores.js'

export const AGGREGATIONS = ['none', 'simple', 'first', 'average', 'max'] as const
export type Aggregation = (typeof AGGREGATIONS)[number]

export interface Entity {
  /** The label; without B- and I- where tokens are grouped. */
  readonly entity: string
  readonly score: number
  readonly word: string
  /** In code points of the text. */
  readonly start: number
  readonly end: number
}

/** A stretch of text with the probability of each label. */
interface Piece {
  readonly scores: readonly number[]
  readonly start: number
  readonly end: number
}

function best(scores: readonly number[]): number {
  return scores.indexOf(Math.max(...scores))
}

function wordScores(tokens: readonly Piece[], aggregation: Aggregation): readonly number[] {
  const [first] = tokens as [Piece]
  if (aggregation === 'first') return first.scores
  if (aggregation === 'max')
    return tokens.reduce((top, one) => (Math.max(...one.scores) > Math.max(...top.scores) ? one : top)).scores
  return first.scores.map(
    (_, label) => tokens.reduce((sum, { scores }) => sum + (scores[label] as number), 0) / tokens.length,
  )
}

/** Tokens of one word as one piece each, where the aggregation is one of words. */
function piecesOf(located: Located, logits: Float32Array, labels: number, aggregation: Aggregation): Piece[] {
  const isByWord = aggregation !== 'none' && aggregation !== 'simple'
  const groups: { word: number | null; tokens: Piece[] }[] = []
  for (const [token, [start = 0, end = 0]] of located.offsets.entries()) {
    if (located.isSpecial[token] === true) continue
    const piece = { scores: softmax(logits.subarray(token * labels, (token + 1) * labels)), start, end }
    const word = located.words[token] ?? null
    const last = groups.at(-1)
    if (isByWord && word !== null && last?.word === word) last.tokens.push(piece)
    else groups.push({ word, tokens: [piece] })
  }
  return groups.map(({ tokens }) => ({
    scores: tokens.length === 1 ? (tokens[0] as Piece).scores : wordScores(tokens, aggregation),
    start: (tokens[0] as Piece).start,
    end: (tokens.at(-1) as Piece).end,
  }))
}

/** `B-PER` to B and PER; what has neither in front is inside. */
function tagOf(label: string): { readonly isBegin: boolean; readonly name: string } {
  if (label.startsWith('B-')) return { isBegin: true, name: label.slice(2) }
  return { isBegin: false, name: label.startsWith('I-') ? label.slice(2) : label }
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}

/**
 * @param logits [tokens, labels].
 * @param labels By place; `O` is outside of everything and is left out.
 */
export function entitiesOf(
  {
    text,
    located,
    logits,
  }: { readonly text: string; readonly located: Located; readonly logits: Float32Array },
  labels: readonly string[],
  aggregation: Aggregation,
): Entity[] {
  const characters = [...text]
  const wordOf = (start: number, end: number) => characters.slice(start, end).join('')
  const groups: { name: string; start: number; end: number; scores: number[] }[] = []
  let previous: string | null = null
  for (const { scores, start, end } of piecesOf(located, logits, labels.length, aggregation)) {
    const label = labels[best(scores)] as string
    const score = Math.max(...scores)
    const { isBegin, name } = aggregation === 'none' ? { isBegin: true, name: label } : tagOf(label)
    const last = groups.at(-1)
    if (label !== 'O' && !isBegin && previous === name && last !== undefined) {
      last.end = end
      last.scores.push(score)
    } else if (label !== 'O') groups.push({ name, start, end, scores: [score] })
    previous = label === 'O' ? null : name
  }
  return groups.map(({ name, start, end, scores }) => ({
    ...{ entity: name, score: mean(scores), word: wordOf(start, end), start, end },
  }))
}
