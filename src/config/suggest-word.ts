/** "Did you mean": the nearest word to one that is not known. */
import { distance } from 'fastest-levenshtein'

/** More edits than this, or than a third of the word, are another word. */
const MAX_EDITS = 3

/** The known word with the fewest edits, or null where none is near. */
export function nearestWord(word: string, known: readonly string[]): string | null {
  const limit = Math.min(MAX_EDITS, Math.ceil(word.length / 3))
  const [nearest] = known
    .map((candidate) => ({ candidate, edits: distance(word, candidate) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits)
  return nearest?.candidate ?? null
}

/** ` (did you mean X?)`, or nothing. */
export function didYouMean(word: string, known: readonly string[], prefix = ''): string {
  const nearest = nearestWord(word, known)
  return nearest === null ? '' : ` (did you mean ${prefix}${nearest}?)`
}
