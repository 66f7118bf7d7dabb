/** A text model for front ends: texts in; vectors, labels, entities or scores out. */
import { readFile } from 'node:fs/promises'
import { OnecopyError } from '../errors.js'
import type { TensorSpec } from '../tensor.js'
import {
  type Located,
  type TextOrPair,
  TextTokenizer,
  type Tokenized,
} from '../transform/tokenizer-library.js'
import { applyDense, type DenseLayer, readDense } from './dense.js'
import type { TextDescription, TextTask } from './description.js'
import { invalid, sha256Of } from './hub-files.js'
import { type Sequence, type TextInterface, textInterface } from './interface.js'
import { LengthBatcher, type RowOfBatch, type RunBatch } from './length-batcher.js'
import { findPaddingProblem } from './padding-check.js'
import { normalize, sigmoid, softmax } from './scores.js'
import { type Aggregation, type Entity, entitiesOf } from './token-classes.js'

/** A text, a pair of them, or the ids of its tokens as they go into the model. */
export type TextInput = TextOrPair | { readonly ids: readonly number[] }

export interface TextLimits {
  readonly maxRows: number
  readonly maxTokens: number
  readonly maxRequests: number
  readonly maxBytes: number
}

export interface TextModelOptions {
  readonly description: TextDescription
  readonly model: { readonly inputs: readonly TensorSpec[]; readonly outputs: readonly TensorSpec[] }
  readonly isBatchable: boolean
  readonly limits: TextLimits
  /** For clients. */
  readonly run: RunBatch
  /** While it is opened; not counted. */
  readonly tryOut: RunBatch
}

export interface TextRequest {
  /** Whether tokens beyond the longest length are left out; the text is refused otherwise. */
  readonly isTruncated: boolean
  readonly isCancelled: () => boolean
}

export interface Answer<T> {
  readonly results: readonly T[]
  /** Of all texts together, special tokens included. */
  readonly tokens: number
}

export interface EmbedRequest extends TextRequest {
  /** Null: as configured in the model's folder. */
  readonly isNormalized: boolean | null
  /** Null: all. */
  readonly dimensions: number | null
  /** Name of the prompt to put before each text; undefined: the model's default. */
  readonly prompt?: string | undefined
}

export interface Scored {
  readonly label: string
  readonly score: number
}

function isPlain(input: TextInput): input is TextOrPair {
  return typeof input === 'string' || Array.isArray(input)
}

export class TextModel {
  readonly description: TextDescription
  readonly tokenizer: TextTokenizer
  readonly limits: TextLimits
  /** Why only sequences of one length share a batch; null if all lengths do. */
  readonly paddingProblem: string | null
  readonly #interface: TextInterface
  readonly #dense: readonly DenseLayer[]
  readonly #batcher: LengthBatcher

  private constructor(
    { description, isBatchable, limits, run }: TextModelOptions,
    parts: {
      readonly tokenizer: TextTokenizer
      readonly textInterface: TextInterface
      readonly dense: readonly DenseLayer[]
      readonly paddingProblem: string | null
    },
  ) {
    this.description = description
    this.tokenizer = parts.tokenizer
    this.limits = limits
    this.paddingProblem = parts.paddingProblem
    this.#interface = parts.textInterface
    this.#dense = parts.dense
    this.#batcher = new LengthBatcher({
      ...limits,
      ...{ textInterface: parts.textInterface, paddingId: description.paddingId, run, isBatchable },
      isPaddable: parts.paddingProblem === null,
    })
  }

  /**
   * Reads the tokenizer and dense layers, and checks whether padding changes results.
   * @throws OnecopyError MODEL_UNSUPPORTED, REPOSITORY_INVALID, TRANSFORM_UNAVAILABLE,
   *   MODEL_RUN_FAILED.
   */
  static async open(options: TextModelOptions): Promise<TextModel> {
    const { description, model, isBatchable, tryOut } = options
    const { path, sha256 } = description.tokenizer
    const json = await readFile(path, 'utf8')
    if (sha256Of(json) !== sha256) throw invalid(path, 'it has changed since the folder was read')
    const { maxLength, truncationSide } = description
    const tokenizer = TextTokenizer.open({ json, maxLength, truncationSide })
    const dense = await Promise.all(description.dense.map(readDense))
    const text = textInterface(description, model)
    checkDense(dense, text)
    const paddingProblem = isBatchable
      ? await findPaddingProblem({
          ...{ textInterface: text, paddingId: description.paddingId, run: tryOut, maxLength },
          vocabularySize: tokenizer.vocabularySize,
        })
      : null
    return new TextModel(options, {
      ...{ tokenizer, dense, paddingProblem },
      textInterface: text,
    })
  }

  get task(): TextTask {
    return this.description.task
  }

  /** Elements of a vector; null if the graph does not declare them. */
  get dimensions(): number | null {
    const last = this.#dense.at(-1)?.description.outputs ?? this.#interface.output.shape?.at(-1) ?? -1
    return last === -1 ? null : last
  }

  /**
   * @throws OnecopyError REQUEST_INVALID, REQUEST_TOO_LARGE, and of the tokenizer and the batcher.
   */
  async embed(inputs: readonly TextInput[], request: EmbedRequest): Promise<Answer<Float32Array>> {
    this.#requireTask('embedding')
    const { dimensions } = request
    const all = this.dimensions
    if (all !== null) this.#requireElements(dimensions, all)
    const prompt = this.promptOf(request.prompt)
    const ids = inputs.findIndex((input) => !isPlain(input))
    if (request.prompt !== undefined && ids >= 0)
      throw invalidRequest(`prompt_name: expected texts, got ids of tokens as input ${ids}`)
    const sequences = await this.#sequencesOf(
      prompt === '' ? inputs : inputs.map((input) => (typeof input === 'string' ? prompt + input : input)),
      request,
    )
    const results = new Array<Float32Array>(inputs.length)
    const isNormalized = request.isNormalized ?? this.description.isNormalized
    await this.#run(sequences, request, (row, place) => {
      const vector = vectorOf(row, { text: this.#interface, dense: this.#dense })
      this.#requireElements(dimensions, vector.length)
      const cut = dimensions === null ? vector : vector.subarray(0, dimensions)
      results[place] = isNormalized || dimensions !== null ? normalize(cut) : cut
    })
    return { results, tokens: countOf(sequences) }
  }

  /** Labels of each text, the likeliest first; `isRaw`: logits instead of probabilities. */
  async classify(
    inputs: readonly TextInput[],
    request: TextRequest & { readonly isRaw: boolean },
  ): Promise<Answer<readonly Scored[]>> {
    this.#requireTask('classification', 'reranking')
    const sequences = await this.#sequencesOf(inputs, request)
    const { labels, activation } = this.description
    const results = new Array<readonly Scored[]>(inputs.length)
    await this.#run(sequences, request, ({ data }, place) => {
      const scores =
        request.isRaw || activation === 'none'
          ? data
          : activation === 'softmax'
            ? softmax(data)
            : data.map(sigmoid)
      results[place] = labels
        .map((label, i) => ({ label, score: scores[i] as number }))
        .sort((a, b) => b.score - a.score)
    })
    return { results, tokens: countOf(sequences) }
  }

  async findEntities(
    texts: readonly string[],
    request: TextRequest & { readonly aggregation: Aggregation },
  ): Promise<Answer<readonly Entity[]>> {
    this.#requireTask('token-classification')
    const { isCancelled } = request
    const located = await this.tokenizer.locate(texts, { isCancelled })
    this.#checkLengths(located, request)
    const results = new Array<readonly Entity[]>(texts.length)
    await this.#run(located, request, ({ data }, place) => {
      const text = texts[place] as string
      const row = { text, located: located[place] as Located, logits: data }
      results[place] = entitiesOf(row, this.description.labels, request.aggregation)
    })
    return { results, tokens: countOf(located) }
  }

  /**
   * How well each text fits the query, in the order of the texts; `isRaw`: logits instead of 0 to
   * 1.
   */
  async rerank(
    query: string,
    texts: readonly string[],
    request: TextRequest & { readonly isRaw: boolean },
  ): Promise<Answer<number>> {
    this.#requireTask('reranking')
    const sequences = await this.#sequencesOf(
      texts.map((text) => [query, text] as const),
      request,
    )
    const results = new Array<number>(texts.length)
    await this.#run(sequences, request, ({ data }, place) => {
      const logit = data[0] as number
      results[place] = request.isRaw ? logit : sigmoid(logit)
    })
    return { results, tokens: countOf(sequences) }
  }

  #requireElements(dimensions: number | null, all: number): void {
    if (dimensions !== null && dimensions > all)
      throw invalidRequest(`dimensions: expected at most ${all}, the model's, got ${dimensions}`)
  }

  #requireTask(...tasks: TextTask[]): void {
    const { task } = this.description
    if (tasks.includes(task)) return
    throw invalidRequest(`expected a model for ${tasks.join(' or ')}, this one is for ${task}`)
  }

  /**
   * The text before each input; the default one without a name. @throws OnecopyError
   * REQUEST_INVALID.
   */
  promptOf(name: string | undefined): string {
    const { prompts, defaultPrompt } = this.description
    const chosen = name ?? defaultPrompt
    if (chosen === null) return ''
    const prompt = Object.hasOwn(prompts, chosen) ? prompts[chosen] : undefined
    if (prompt !== undefined) return prompt
    const known = Object.keys(prompts).join(', ') || 'none'
    throw invalidRequest(`prompt_name: the model's prompts are ${known}, got ${JSON.stringify(chosen)}`)
  }

  async #sequencesOf(inputs: readonly TextInput[], request: TextRequest): Promise<Sequence[]> {
    const { isCancelled } = request
    const tokenized = await this.tokenizer.encode(inputs.filter(isPlain), { isCancelled })
    let next = 0
    const all = inputs.map(
      (input, place): Tokenized =>
        isPlain(input) ? (tokenized[next++] as Tokenized) : this.#givenIds(input.ids, place),
    )
    this.#checkLengths(all, request)
    return all
  }

  /** Ids that the client made itself. */
  #givenIds(ids: readonly number[], place: number): Tokenized {
    const { vocabularySize, maxLength } = this.tokenizer
    if (ids.length === 0) throw invalidRequest(`input ${place}: expected ids of tokens, got none`)
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabularySize)
    if (wrong !== undefined)
      throw invalidRequest(`input ${place}: expected ids from 0 to ${vocabularySize - 1}, got ${wrong}`)
    const kept = ids.slice(0, maxLength)
    return { ids: kept, typeIds: kept.map(() => 0), isTruncated: ids.length > maxLength }
  }

  #checkLengths(all: readonly Tokenized[], { isTruncated }: TextRequest): void {
    const empty = all.findIndex(({ ids }) => ids.length === 0)
    if (empty >= 0) throw invalidRequest(`input ${empty}: expected a text of at least one token, got none`)
    const { maxLength } = this.description
    const long = all.findIndex((one) => one.ids.length > maxLength || (one.isTruncated && !isTruncated))
    if (long < 0) return
    throw new OnecopyError(
      'REQUEST_TOO_LARGE',
      `input ${long}: expected at most ${maxLength} tokens, the model's limit, got more ("truncate": true leaves out what is beyond)`,
    )
  }

  async #run(
    sequences: readonly Sequence[],
    { isCancelled }: TextRequest,
    take: (row: RowOfBatch, place: number) => void,
  ): Promise<void> {
    await this.#batcher.run(sequences, take, { isCancelled })
  }
}

function invalidRequest(message: string): OnecopyError {
  return new OnecopyError('REQUEST_INVALID', message)
}

function countOf(sequences: readonly Sequence[]): number {
  return sequences.reduce((sum, { ids }) => sum + ids.length, 0)
}

function vectorOf(
  row: RowOfBatch,
  { text, dense }: { readonly text: TextInterface; readonly dense: readonly DenseLayer[] },
): Float32Array {
  let vector: Float32Array = row.data.slice()
  if (text.pooling !== null) for (const layer of dense) vector = applyDense(layer, vector)
  return vector
}

function checkDense(dense: readonly DenseLayer[], { output, pooling }: TextInterface): void {
  if (pooling === null) return
  let width = output.shape?.at(-1) ?? -1
  for (const { description } of dense) {
    if (width !== -1 && description.inputs !== width)
      throw invalid(description.weights.path, `in_features: expected ${width}, got ${description.inputs}`)
    width = description.outputs
  }
}
