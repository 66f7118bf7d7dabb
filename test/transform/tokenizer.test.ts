import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer as PlainTokenizer } from '@huggingface/tokenizers'
import test from 'ava'
import { type Encoding, Tokenizer } from 'tokenizers'
import { InputChoiceSchema } from '../../src/transform/registry.js'
import { TransformRunner } from '../../src/transform/runner.js'
import { callsOf, MAX_TEXT_CHARACTERS, TextTokenizer } from '../../src/transform/tokenizer-library.js'
import { temporaryFolder } from '../helpers/server.js'
import { ADVERSARIAL, textsOf } from '../helpers/text-corpus.js'
import {
  specialTokens,
  TOKENIZER_KINDS,
  type TokenizerKind,
  tokenizerFile,
} from '../helpers/tokenizer-files.js'

const MANY = 20_000

function opened(kind: TokenizerKind, maxLength = 100_000): TextTokenizer {
  return TextTokenizer.open({
    json: JSON.stringify(tokenizerFile(kind)),
    maxLength,
    truncationSide: 'right',
  })
}

/** The library itself, one text at a time, without truncation. */
function oracleOf(kind: TokenizerKind): Tokenizer {
  return Tokenizer.fromString(JSON.stringify(tokenizerFile(kind)))
}

function textsWithAdversarial(count: number, seed: number): string[] {
  return [...ADVERSARIAL, ...textsOf(count - ADVERSARIAL.length, { seed, isAdversarial: true })]
}

for (const kind of TOKENIZER_KINDS) {
  test(`${kind}: the ids of ${MANY} texts, single and in pairs, truncated and not, are the library's one by one`, async (t) => {
    const oracle = oracleOf(kind)
    const texts = textsWithAdversarial(MANY / 2, 11)
    const limit = 24
    const [whole, cut] = [await opened(kind).encode(texts), await opened(kind, limit).encode(texts)]
    const pairs = texts.map((text, i) => [text, texts[texts.length - 1 - i] as string] as const)
    const paired = await opened(kind).encode(pairs)
    const cutPairs = await opened(kind, limit).encode(pairs)
    const same = (encoding: Encoding, got: { ids: number[]; typeIds: number[] } | undefined) =>
      String(encoding.getIds()) === String(got?.ids) && String(encoding.getTypeIds()) === String(got?.typeIds)
    const differing: unknown[] = []
    for (const [i, text] of texts.entries()) {
      const single = await oracle.encode(text)
      const pair = await oracle.encode(...(pairs[i] as [string, string]))
      if (!same(single, whole[i]) || !same(pair, paired[i])) differing.push(text)
      const lengths = [single.getLength(), pair.getLength()]
      const short = cut[i]
      if (short === undefined || short.ids.length !== Math.min(limit, lengths[0] as number))
        differing.push(text)
      // Truncated in front of the last special token: what is before it is the beginning of the whole.
      else if (String(short.ids.slice(0, -1)) !== String(whole[i]?.ids.slice(0, short.ids.length - 1)))
        differing.push(text)
      if (short?.isTruncated !== (lengths[0] as number) > limit) differing.push(text)
      if (cutPairs[i]?.ids.length !== Math.min(limit, lengths[1] as number)) differing.push(pairs[i])
      if (cutPairs[i]?.isTruncated !== (lengths[1] as number) > limit) differing.push(pairs[i])
    }
    t.deepEqual(differing.slice(0, 3), [])
  })
}

for (const kind of ['byte-level-bpe', 'unigram'] as const) {
  test(`${kind}: another implementation agrees on ${MANY / 4} texts`, async (t) => {
    const other = new PlainTokenizer(tokenizerFile(kind), specialTokens(kind))
    const texts = textsOf(MANY / 4, { seed: 5, isAdversarial: true })
    const ours = await opened(kind).encode(texts)
    const differing = texts.filter((text, i) => String(other.encode(text).ids) !== String(ours[i]?.ids))
    t.deepEqual(differing, [])
  })
}

test('special tokens written out are special tokens, and lone surrogates are U+FFFD', async (t) => {
  const tokenizer = opened('byte-level-bpe')
  const [written, surrogate, replaced] = await tokenizer.encode(['a</s>', 'a\ud800b', 'a\ufffdb'])
  t.is(written?.ids.filter((id) => id === 3).length, 2)
  t.deepEqual(surrogate?.ids, replaced?.ids)
})

test('a text of 1 Mi characters without a space is done, a longer one is refused with its place', async (t) => {
  const tokenizer = opened('wordpiece', 64)
  const long = 'x'.repeat(MAX_TEXT_CHARACTERS)
  const [only] = await tokenizer.encode([long])
  // One word of more characters than any token has.
  t.deepEqual(only?.ids, [2, 1, 3])
  await t.throwsAsync(tokenizer.encode(['a', `${long}x`]), {
    code: 'REQUEST_TOO_LARGE',
    message: /^text 1: expected at most 1048576 characters, got 1048577$/,
  })
})

test('truncation from the left keeps the end', async (t) => {
  const json = JSON.stringify(tokenizerFile('wordpiece'))
  const tokenizer = TextTokenizer.open({ json, maxLength: 4, truncationSide: 'left' })
  const [cut, kept] = await tokenizer.encode(['the white rabbit', 'white rabbit'])
  t.deepEqual(cut?.ids, kept?.ids)
  t.true(cut?.isTruncated)
  t.false(kept?.isTruncated)
})

test('a length without room for the special tokens is passed, and said to be', async (t) => {
  const [only] = await opened('wordpiece', 1).encode(['the white rabbit'])
  t.true((only?.ids.length ?? 0) > 1)
  t.true(only?.isTruncated)
})

test('tokens are located in code points of their text, with their words', async (t) => {
  const [located] = await opened('wordpiece').locate(['👍 White rabbit!'])
  const words = new Set(located?.words.filter((word) => word !== null))
  t.is(words.size, 4)
  const characters = [...'👍 White rabbit!']
  const at = located?.words.indexOf(1) ?? -1
  const [begin = 0] = located?.offsets[at] ?? []
  t.is(characters[begin], 'W')
  t.deepEqual(
    located?.isSpecial.flatMap((one, i) => (one ? [i] : [])),
    [0, (located?.ids.length ?? 0) - 1],
  )
})

test('a client that left costs no further call', async (t) => {
  let calls = 0
  const texts = textsOf(200)
  const isCancelled = () => ++calls > 2
  await t.throwsAsync(opened('wordlevel').encode(texts, { isCancelled }), { code: 'REQUEST_CANCELLED' })
  t.is(calls, 3)
})

test('many texts are handed over in calls of a bounded size, in order', (t) => {
  const texts = [...textsOf(150), 'x'.repeat(300_000), 'y'.repeat(200_000), 'z'.repeat(100_000)]
  const calls = [...callsOf(texts)]
  t.deepEqual(calls.flat(), texts)
  t.deepEqual(
    calls.map((call) => call.length),
    [64, 64, 22, 1, 1, 1],
  )
})

test('a file that is no tokenizer is refused', (t) => {
  t.throws(() => TextTokenizer.open({ json: '{"model": 7}', maxLength: 8, truncationSide: 'right' }), {
    code: 'REPOSITORY_INVALID',
    message: /^expected a tokenizer: /,
  })
})

test('as a transform it fills rows of one length, with a mask, and refuses what is longer', async (t) => {
  const file = join(temporaryFolder(t), 'tokenizer.json')
  writeFileSync(file, JSON.stringify(tokenizerFile('wordpiece')))
  const choice = InputChoiceSchema.parse({ kind: 'tokenizer', file, length: 6, types: true })
  await using runner = await TransformRunner.open({ choice })
  t.deepEqual(
    runner.rows.map(({ shape }) => shape),
    [[6], [6], [6]],
  )
  const items = ['the rabbit', 7, 'the white rabbit with pink eyes', '', 'alice']
  const { accepted, rows } = await runner.encode(items)
  t.deepEqual([...accepted], [1, 0, 0, 0, 1])
  const [first, second] = await opened('wordpiece').encode(['the rabbit', 'alice'])
  const padded = [first, second].map((one) => [...(one?.ids ?? []), 0, 0, 0, 0, 0, 0].slice(0, 6))
  t.deepEqual([...(rows[0] ?? [])].map(Number), padded.flat())
  t.deepEqual(
    [...(rows[1] ?? [])].map(Number),
    padded.flat().map((id) => (id === 0 ? 0 : 1)),
  )
  t.deepEqual([...new Set([...(rows[2] ?? [])])], [0n])
  const missing = InputChoiceSchema.parse({ kind: 'tokenizer', file: '/no/such/file', length: 6 })
  await t.throwsAsync(TransformRunner.open({ choice: missing }), { code: 'TRANSFORM_UNAVAILABLE' })
})
