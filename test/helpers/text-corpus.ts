/** Public-domain text for tokenizers to be trained on, and texts made of it for tests. */

/** Lincoln 1863, Carroll 1865, Austen 1813, Goethe 1782, Hugo 1862, Pushkin 1833, Homer, Li Bai, Genesis. */
export const PASSAGES: readonly string[] = [
  'Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and dedicated to the proposition that all men are created equal.',
  'Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great battle-field of that war.',
  'The world will little note, nor long remember what we say here, but it can never forget what they did here. It is for us the living, rather, to be dedicated here to the unfinished work.',
  'Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is the use of a book," thought Alice "without pictures or conversations?"',
  'So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close by her.',
  'There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit say to itself, "Oh dear! Oh dear! I shall be late!"',
  'It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families.',
  'My dear Mr. Bennet, said his lady to him one day, have you heard that Netherfield Park is let at last? Mr. Bennet replied that he had not.',
  'Wer reitet so spät durch Nacht und Wind? Es ist der Vater mit seinem Kind; er hat den Knaben wohl in dem Arm, er faßt ihn sicher, er hält ihn warm.',
  'En 1815, M. Charles-François-Bienvenu Myriel était évêque de Digne. C’était un vieillard d’environ soixante-quinze ans; il occupait le siège de Digne depuis 1806.',
  'На берегу пустынных волн стоял он, дум великих полн, и вдаль глядел. Пред ним широко река неслася; бедный чёлн по ней стремился одиноко.',
  'Ἄνδρα μοι ἔννεπε, Μοῦσα, πολύτροπον, ὃς μάλα πολλὰ πλάγχθη, ἐπεὶ Τροίης ἱερὸν πτολίεθρον ἔπερσεν. ΟΔΥΣΣΕΥΣ ΤΗΣ ΙΘΑΚΗΣ.',
  '床前明月光,疑是地上霜。舉頭望明月,低頭思故鄉。',
  'בראשית ברא אלהים את השמים ואת הארץ. והארץ היתה תהו ובהו וחשך על פני תהום.',
  'في البدء خلق الله السماوات والأرض. وكانت الأرض خربة وخالية.',
  'In 1806 there were 3,141 sheep; 1,592 of them (about 50.7%) were sold for £6,535 on the 9th of March.',
]

/** What breaks tokenizers: empty, spaces, composed emoji, marks, right to left, NUL, special tokens written out. */
export const ADVERSARIAL: readonly string[] = [
  '',
  ' ',
  ' \t\r\n  ',
  '👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 👍🏽',
  'e\u0301\u0327\u0323 Z\u0351\u036b\u0343\u036a\u0302a\u0322',
  'שלום \u202eabc\u202c عليكم',
  'a\0b \0 c',
  '\ud800 lone \udc00 surrogates \ud83d',
  '[CLS] [SEP] [PAD] <s> </s> <unk> [MASK] <|endoftext|>',
  '\ufffd\ufeff\u200b\u00ad\u2028\u2029\u0085',
  'İstanbul ΟΔΟΣ ß ﬁ Ǆ K',
  '𠀀𪛖 漢字かなカナ한글',
  "don't we'll I'M they've",
  'word'.repeat(64),
  '123456789012345678901234567890',
  '½ ² ٣ Ⅷ 五',
  '\u00a0\u3000\u1680x\u2003y',
]

/** A generator of numbers in [0, 1) that gives the same ones in every run (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const WORDS = PASSAGES.flatMap((passage) => passage.split(' '))

export interface TextOptions {
  readonly seed?: number
  /** Longest text, in words. */
  readonly maxWords?: number
  /** Whether adversarial pieces are among the words. */
  readonly isAdversarial?: boolean
}

/** Texts of 1 to `maxWords` words each. */
export function textsOf(
  count: number,
  { seed = 1, maxWords = 24, isAdversarial = false }: TextOptions = {},
): string[] {
  const random = seededRandom(seed)
  const pick = <T>(from: readonly T[]) => from[Math.floor(random() * from.length)] as T
  return Array.from({ length: count }, () => {
    const words = 1 + Math.floor(random() * maxWords)
    const parts = Array.from({ length: words }, () =>
      isAdversarial && random() < 0.1 ? pick(ADVERSARIAL) : pick(WORDS),
    )
    return parts.join(isAdversarial && random() < 0.05 ? '  ' : ' ')
  })
}
