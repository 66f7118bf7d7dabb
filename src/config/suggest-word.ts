/** Suggests the nearest known word for an unknown one. */
import { distance } from 'fastest-levenshtein'

/** A suggestion has at most this many edits, and at most a third of the length of the word. */
const MAX_EDITS = 3

/** The known word with the fewest edits, or null if none is close enough. */
export function nearestWord(word: string, known: readonly string[]): string | null {
  const limit = Math.min(MAX_EDITS, Math.ceil(word.length / 3))
  const [nearest] = known
    .map((candidate) => ({ candidate, edits: distance(word, candidate) }))
    .filter(({ edits }) => edits <= limit)
    .sort((a, b) => a.edits - b.edits)
  return nearest?.candidate ?? null
}

/** ` (did you mean X?)`, or an empty string. */
export function didYouMean(word: string, known: readonly string[], prefix = ''): string {
  const nearest = nearestWord(word, known)
  return nearest === null ? '' : ` (did you mean ${prefix}${nearest}?)`
}
