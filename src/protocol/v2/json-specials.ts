/**
 * NaN and the infinities among JSON numbers, bare, as Python's `json`, tritonclient and RapidJSON write them.
 * The grammar of JSON has no such words. In the data of a float tensor they are accepted.
 */

/** A float without a JSON form, in one of its usual spellings, in the position of a value. */
export const BARE_SPECIAL = /(?:^|[[,:\s])[+-]?(?:nan|inf(?:inity)?)\b/i

const STRING_OR_SPECIAL = /["NI]/g

/**
 * JSON text in which bare `NaN`, `Infinity` and `-Infinity` are strings: Python's `json`, tritonclient and
 * others write them. Strings are unchanged. A word beside something else, such as `1NaN`, is still no JSON
 * afterwards.
 * @throws RangeError when the text becomes too long for a string.
 */
export function quoteSpecials(text: string): string {
  let quoted = ''
  let from = 0
  STRING_OR_SPECIAL.lastIndex = 0
  for (let found = STRING_OR_SPECIAL.exec(text); found !== null; found = STRING_OR_SPECIAL.exec(text)) {
    const at = found.index
    const word = found[0] === 'N' ? 'NaN' : 'Infinity'
    if (found[0] === '"') STRING_OR_SPECIAL.lastIndex = closingQuote(text, at) + 1
    else if (text.startsWith(word, at)) {
      const start = word === 'Infinity' && text[at - 1] === '-' ? at - 1 : at
      const end = at + word.length
      quoted += `${text.slice(from, start)}"${text.slice(start, end)}"`
      from = end
      STRING_OR_SPECIAL.lastIndex = end
    }
  }
  return quoted + text.slice(from)
}

/** Of the string that opens at `at`; the last character of the text when it never closes. */
function closingQuote(text: string, at: number): number {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0
    while (text[end - 1 - backslashes] === '\\') backslashes++
    if (backslashes % 2 === 0) return end
  }
  return text.length - 1
}
