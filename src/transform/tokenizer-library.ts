/**
 * Text to token ids, by Hugging Face's own tokenizers: the ids are those that a model was trained with, by definition.
 * The library works on threads of the process's pool; the event loop only hands texts over and takes ids back.
 */
import { createRequire } from 'node:module'
import type { Encoding, Tokenizer } from 'tokenizers'
import { messageOf, OnecopyError } from '../errors.js'

const PACKAGE = 'tokenizers'
/** Longer texts are refused: a thread of the pool cannot be interrupted, and 1 Mi characters take it about a second. */
export const MAX_TEXT_CHARACTERS = 1024 * 1024
/** One call into the library holds a thread of the pool: others get their turn between two. */
const CALL_TEXTS = 64
const CALL_CHARACTERS = 256 * 1024

export type TextOrPair = string | readonly [string, string]

export interface TokenizerOptions {
  /** Content of a `tokenizer.json`. */
  readonly json: string
  /** Longest sequence, special tokens included. */
  readonly maxLength: number
  readonly truncationSide: 'left' | 'right'
}

export interface Tokenized {
  readonly ids: number[]
  /** 1 for the second text of a pair, where the tokenizer tells them apart. */
  readonly typeIds: number[]
  /** Whether tokens beyond the longest length were left out. */
  readonly isTruncated: boolean
}

/** Where tokens stand in their text. */
export interface Located extends Tokenized {
  readonly tokens: string[]
  /** By token: where it begins and ends, in code points of the text. */
  readonly offsets: number[][]
  /** By token: the word that it belongs to; null for special tokens. */
  readonly words: (number | null)[]
  readonly isSpecial: boolean[]
}

export interface EncodeTextOptions {
  readonly addsSpecialTokens?: boolean
  /** Asked between two calls of the library: the rest is not done for somebody who left. */
  readonly isCancelled?: () => boolean
}

function load(): typeof import('tokenizers') {
  // Every worker would start as many threads as there are CPUs; it has the pool of its process.
  process.env.TOKENIZERS_PARALLELISM ??= 'false'
  process.env.RAYON_NUM_THREADS ??= '1'
  try {
    return createRequire(import.meta.url)(PACKAGE) as typeof import('tokenizers')
  } catch (thrown) {
    throw new OnecopyError(
      'TRANSFORM_UNAVAILABLE',
      `expected the optional package ${PACKAGE} to be installed: texts are split into tokens by it (npm install ${PACKAGE})`,
      { cause: thrown },
    )
  }
}

function charactersOf(text: TextOrPair): number {
  return typeof text === 'string' ? text.length : text[0].length + text[1].length
}

/** Consecutive texts that one call of the library may take. */
export function* callsOf(texts: readonly TextOrPair[]): Generator<readonly TextOrPair[]> {
  let call: TextOrPair[] = []
  let characters = 0
  for (const text of texts) {
    if (
      call.length === CALL_TEXTS ||
      (call.length > 0 && characters + charactersOf(text) > CALL_CHARACTERS)
    ) {
      yield call
      call = []
      characters = 0
    }
    call.push(text)
    characters += charactersOf(text)
  }
  if (call.length > 0) yield call
}

export class TextTokenizer {
  readonly #tokenizer: Tokenizer
  readonly maxLength: number
  readonly vocabularySize: number

  private constructor(tokenizer: Tokenizer, maxLength: number) {
    this.#tokenizer = tokenizer
    this.maxLength = maxLength
    this.vocabularySize = tokenizer.getVocabSize(true)
  }

  /**
   * Truncation and padding that stand in the file are not used: lengths are the model's.
   * @throws OnecopyError TRANSFORM_UNAVAILABLE (the package is not installed), REPOSITORY_INVALID (the library refuses the file).
   */
  static open({ json, maxLength, truncationSide }: TokenizerOptions): TextTokenizer {
    const { Tokenizer } = load()
    let tokenizer: Tokenizer
    try {
      tokenizer = Tokenizer.fromString(json)
    } catch (thrown) {
      throw new OnecopyError('REPOSITORY_INVALID', `expected a tokenizer: ${messageOf(thrown)}`, {
        cause: thrown,
      })
    }
    tokenizer.disablePadding()
    tokenizer.setTruncation(maxLength, { direction: truncationSide })
    return new TextTokenizer(tokenizer, maxLength)
  }

  /** The library's batches take no pairs. */
  #call(texts: readonly TextOrPair[], options: { addSpecialTokens: boolean }): Promise<Encoding[]> {
    if (texts.every((text) => typeof text === 'string'))
      return this.#tokenizer.encodeBatch(texts as string[], options)
    return Promise.all(
      texts.map((text) =>
        typeof text === 'string'
          ? this.#tokenizer.encode(text, null, options)
          : this.#tokenizer.encode(text[0], text[1], options),
      ),
    )
  }

  /** @throws OnecopyError REQUEST_TOO_LARGE, REQUEST_CANCELLED. */
  async #encode<T>(
    texts: readonly TextOrPair[],
    { addsSpecialTokens = true, isCancelled }: EncodeTextOptions,
    read: (encoding: Encoding) => T,
  ): Promise<T[]> {
    const long = texts.findIndex((text) => charactersOf(text) > MAX_TEXT_CHARACTERS)
    if (long >= 0)
      throw new OnecopyError(
        'REQUEST_TOO_LARGE',
        `text ${long}: expected at most ${MAX_TEXT_CHARACTERS} characters, got ${charactersOf(texts[long] as TextOrPair)}`,
      )
    const results: T[] = []
    for (const call of callsOf(texts)) {
      if (isCancelled?.() === true)
        throw new OnecopyError('REQUEST_CANCELLED', 'the client disconnected before its texts were tokenized')
      const encodings = await this.#call(call, { addSpecialTokens: addsSpecialTokens })
      for (const encoding of encodings) results.push(read(encoding))
    }
    return results
  }

  #tokenized(encoding: Encoding): Tokenized {
    const ids = encoding.getIds()
    return {
      ids,
      typeIds: encoding.getTypeIds(),
      // Special tokens are never left out: a length with no room for them is passed.
      isTruncated:
        ids.length > this.maxLength ||
        (ids.length === this.maxLength && encoding.getOverflowing().length > 0),
    }
  }

  /** Lone surrogates count as U+FFFD, as they would on the way through UTF-8. */
  encode(texts: readonly TextOrPair[], options: EncodeTextOptions = {}): Promise<Tokenized[]> {
    return this.#encode(texts, options, (encoding) => this.#tokenized(encoding))
  }

  locate(texts: readonly string[], options: EncodeTextOptions = {}): Promise<Located[]> {
    return this.#encode(texts, options, (encoding) => ({
      ...this.#tokenized(encoding),
      tokens: encoding.getTokens(),
      offsets: encoding.getOffsets(),
      words: encoding.getWordIds().map((word) => word ?? null),
      isSpecial: encoding.getSpecialTokensMask().map((one) => one === 1),
    }))
  }
}
