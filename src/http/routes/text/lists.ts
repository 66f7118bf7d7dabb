/**
 * Checks the lists of a request before its schema does. A schema collects an issue for each wrong
 * element, and for each element of every alternative: a body of 10 MB would take more memory than a
 * worker has.
 */
import { OnecopyError } from '../../../errors.js'

/** Maximum number of texts in a request, as reported by `/info`; the body limit applies as well. */
export const MAX_CLIENT_TEXTS = 1_000_000
/** Elements that the schema sees of a list that is correct. */
const SHOWN_ELEMENTS = 2

/** What the elements of a list may be; all are of the kind of the first. */
interface ElementKind {
  readonly what: string
  readonly is: (element: unknown) => boolean
  /** Lists of one text, such as its ids, have no limit of their own. */
  readonly maxElements: number
}

/** The members of a request that are lists, each with the kinds that it may have. */
export type RequestLists = Readonly<Record<string, readonly ElementKind[]>>

const isText = (element: unknown) => typeof element === 'string'
const isId = (element: unknown) => Number.isSafeInteger(element) && (element as number) >= 0

const TEXTS: ElementKind = { what: 'a text', is: isText, maxElements: MAX_CLIENT_TEXTS }
const IDS: ElementKind = { what: 'the id of a token', is: isId, maxElements: Number.POSITIVE_INFINITY }
const LISTS_OF_IDS: ElementKind = {
  what: 'a list of ids of tokens',
  is: (element) => Array.isArray(element) && element.length > 0 && element.every(isId),
  maxElements: MAX_CLIENT_TEXTS,
}
const ONE_OR_TWO: ElementKind = { ...TEXTS, maxElements: 2 }
const PAIRS: ElementKind = {
  what: 'a list of one or two texts',
  is: (element) =>
    Array.isArray(element) && element.length > 0 && element.length <= 2 && element.every(isText),
  maxElements: MAX_CLIENT_TEXTS,
}
const DOCUMENTS: ElementKind = {
  what: 'a text or an object with a text',
  is: (element) => isText(element) || isText((element as { text?: unknown } | null)?.text),
  maxElements: MAX_CLIENT_TEXTS,
}

export const EMBEDDING_LISTS = [TEXTS, IDS, LISTS_OF_IDS] as const
export const TEXT_LISTS = [TEXTS] as const
export const PAIR_LISTS = [ONE_OR_TWO, PAIRS] as const
export const DOCUMENT_LISTS = [DOCUMENTS] as const

function invalid(message: string): OnecopyError {
  return new OnecopyError('REQUEST_INVALID', message)
}

function described(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list'
  if (typeof value === 'string') return 'a text'
  return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

function checkList(member: string, list: readonly unknown[], kinds: readonly ElementKind[]): void {
  const kind = kinds.find(({ is }) => is(list[0]))
  const all = kinds.map(({ what }) => what)
  const any = [all.slice(0, -1).join(', '), ...all.slice(-1)].filter((one) => one !== '').join(' or ')
  if (kind === undefined) throw invalid(`${member}.0: expected ${any}, got ${described(list[0])}`)
  const wrong = list.findIndex((element) => !kind.is(element))
  if (wrong >= 0)
    throw invalid(
      `${member}.${wrong}: expected ${kind.what} like the elements before it, got ${described(list[wrong])}`,
    )
  if (list.length <= kind.maxElements) return
  if (kind.maxElements < MAX_CLIENT_TEXTS)
    throw invalid(`${member}: expected at most ${kind.maxElements} texts, a pair, got ${list.length}`)
  throw new OnecopyError(
    'REQUEST_TOO_LARGE',
    `${member}: expected at most ${MAX_CLIENT_TEXTS} elements in a request, got ${list.length}`,
  )
}

/**
 * The request with its lists cut to a few elements, for the schema. Members that are not lists are
 * left to it.
 * @throws OnecopyError REQUEST_INVALID naming the first wrong element, REQUEST_TOO_LARGE.
 */
export function withShortLists(request: unknown, lists: RequestLists): unknown {
  if (typeof request !== 'object' || request === null || Array.isArray(request)) return request
  const short: Record<string, unknown> = { ...request }
  for (const [member, kinds] of Object.entries(lists)) {
    const list = short[member]
    if (!Array.isArray(list) || list.length === 0) continue
    checkList(member, list, kinds)
    short[member] = list.slice(0, SHOWN_ELEMENTS)
  }
  return short
}

/** The parsed request with its lists as they came. */
export function withWholeLists<Parsed>(parsed: Parsed, request: unknown, lists: RequestLists): Parsed {
  const whole = { ...parsed } as Record<string, unknown>
  for (const member of Object.keys(lists)) {
    const list = (request as Record<string, unknown>)[member]
    if (Array.isArray(list)) whole[member] = list
  }
  return whole as Parsed
}
