/** Real tokenizers of every kind, trained on the spot on the corpus: the content of a `tokenizer.json` each. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as library from 'tokenizers'
import { TEMPORARY_PREFIX } from './temporary-names.js'
import { PASSAGES } from './text-corpus.js'

export type TokenizerKind = 'wordpiece' | 'byte-level-bpe' | 'unigram' | 'wordlevel'
export const TOKENIZER_KINDS: readonly TokenizerKind[] = [
  'wordpiece',
  'byte-level-bpe',
  'unigram',
  'wordlevel',
]

export interface TokenizerFile {
  readonly version: string
  readonly model: { readonly type: string; readonly vocab: unknown }
  readonly added_tokens: readonly { readonly id: number; readonly content: string }[]
  readonly [key: string]: unknown
}

interface Recipe {
  readonly empty: () => library.Model
  readonly preTokenizer: object
  readonly preTokenize: () => library.PreTokenizer
  readonly normalizer: object | null
  readonly normalize: () => library.Normalizer | null
  readonly special: { pad: string; unk: string; begin: string; end: string; mask: string }
  /** Whether the second text of a pair has a type of its own. */
  readonly hasTypes: boolean
}

const BERT = { pad: '[PAD]', unk: '[UNK]', begin: '[CLS]', end: '[SEP]', mask: '[MASK]' }
const ROBERTA = { pad: '<pad>', unk: '<unk>', begin: '<s>', end: '</s>', mask: '<mask>' }
const BERT_NORMALIZER = {
  type: 'BertNormalizer',
  clean_text: true,
  handle_chinese_chars: true,
  strip_accents: null,
  lowercase: true,
}

const RECIPES: Readonly<Record<TokenizerKind, Recipe>> = {
  wordpiece: {
    empty: () => library.WordPiece.empty(),
    preTokenizer: { type: 'BertPreTokenizer' },
    preTokenize: () => library.bertPreTokenizer(),
    normalizer: BERT_NORMALIZER,
    normalize: () => library.bertNormalizer({ lowercase: true }),
    special: BERT,
    hasTypes: true,
  },
  'byte-level-bpe': {
    empty: () => library.BPE.empty(),
    preTokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    preTokenize: () => library.byteLevelPreTokenizer(false),
    normalizer: null,
    normalize: () => null,
    special: ROBERTA,
    hasTypes: false,
  },
  unigram: {
    empty: () => library.Unigram.empty(),
    preTokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    preTokenize: () => library.metaspacePreTokenizer(),
    normalizer: { type: 'NFKC' },
    normalize: () => library.nfkcNormalizer(),
    special: ROBERTA,
    hasTypes: false,
  },
  wordlevel: {
    empty: () => library.WordLevel.empty(),
    preTokenizer: { type: 'Whitespace' },
    preTokenize: () => library.whitespacePreTokenizer(),
    normalizer: { type: 'Lowercase' },
    normalize: () => library.lowercase(),
    special: BERT,
    hasTypes: true,
  },
}

/** The vocabulary behind the special tokens, which get the first ids. */
function modelWith(model: Record<string, unknown>, { special }: Recipe): Record<string, unknown> {
  const names = Object.values(special)
  if (model.type === 'Unigram') {
    const trained = model.vocab as [string, number][]
    const least = Math.min(...trained.map(([, score]) => score)) - 10
    return {
      ...model,
      unk_id: 1,
      vocab: [
        ...names.map((name) => [name, name === special.unk ? least : 0]),
        ...trained.filter(([token]) => !names.includes(token)),
      ],
    }
  }
  const trained = model.vocab as Record<string, number>
  const tokens = Object.keys(trained).sort((a, b) => (trained[a] as number) - (trained[b] as number))
  const known = tokens.filter((token) => !names.includes(token))
  const vocab = Object.fromEntries([...names, ...known].map((token, id) => [token, id]))
  const unknown = model.type === 'BPE' ? {} : { unk_token: special.unk }
  return { ...model, ...unknown, vocab }
}

function templateOf({ special, hasTypes }: Recipe): object {
  const ids = Object.values(special)
  const token = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } })
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } })
  const { begin, end } = special
  const second = hasTypes ? 1 : 0
  return {
    type: 'TemplateProcessing',
    single: [token(begin, 0), text('A', 0), token(end, 0)],
    pair: [
      token(begin, 0),
      text('A', 0),
      token(end, 0),
      ...(hasTypes ? [] : [token(end, 0)]),
      text('B', second),
      token(end, second),
    ],
    special_tokens: Object.fromEntries(
      [begin, end].map((name) => [name, { id: name, ids: [ids.indexOf(name)], tokens: [name] }]),
    ),
  }
}

function train(kind: TokenizerKind): TokenizerFile {
  const recipe = RECIPES[kind]
  const folder = mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))
  try {
    const [corpus, trained] = [join(folder, 'corpus.txt'), join(folder, 'tokenizer.json')]
    writeFileSync(corpus, `${PASSAGES.join('\n')}\n`)
    const tokenizer = new library.Tokenizer(recipe.empty())
    const normalizer = recipe.normalize()
    if (normalizer !== null) tokenizer.setNormalizer(normalizer)
    tokenizer.setPreTokenizer(recipe.preTokenize())
    tokenizer.train([corpus])
    tokenizer.save(trained)
    const { model } = JSON.parse(readFileSync(trained, 'utf8')) as { model: Record<string, unknown> }
    return {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: Object.values(recipe.special).map((content, id) => ({
        ...{ id, content, single_word: false, lstrip: content === recipe.special.mask, rstrip: false },
        ...{ normalized: false, special: true },
      })),
      normalizer: recipe.normalizer,
      pre_tokenizer: recipe.preTokenizer,
      post_processor: templateOf(recipe),
      decoder: null,
      model: modelWith(model, recipe) as TokenizerFile['model'],
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const trained = new Map<TokenizerKind, TokenizerFile>()

/** Training takes some 100 ms; each kind is trained once a process. */
export function tokenizerFile(kind: TokenizerKind): TokenizerFile {
  const file = trained.get(kind) ?? train(kind)
  trained.set(kind, file)
  return file
}

export function vocabularySize({ model: { vocab } }: TokenizerFile): number {
  return Array.isArray(vocab) ? vocab.length : Object.keys(vocab as object).length
}

/** As a `tokenizer_config.json` names them. */
export function specialTokens(kind: TokenizerKind): Record<string, string> {
  const { pad, unk, begin, end, mask } = RECIPES[kind].special
  return { pad_token: pad, unk_token: unk, cls_token: begin, sep_token: end, mask_token: mask }
}

export function hasTokenTypes(kind: TokenizerKind): boolean {
  return RECIPES[kind].hasTypes
}
