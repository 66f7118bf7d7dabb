/**
 * Filters error messages for clients. Messages of the runtime contain source locations, function signatures
 * and failed conditions, and messages for administrators contain file names of this machine. Clients get the
 * remaining sentence with the operator and the node; the log has the complete message.
 */
import { existsSync } from 'node:fs'
import { basename, dirname } from 'node:path'

const MAX_CHARACTERS = 2000
/** Maximum length of a signature; longer text is a sentence. */
const MAX_SIGNATURE_CHARACTERS = 2000

const SOURCE_NAME = String.raw`[\w.+-]+\.(?:h|hh|hpp|hxx|c|cc|cpp|cxx|cu|cuh|inc|inl|ipp)`
/** `/onnxruntime_src/.../reshape_helper.h:91 `, `matmul_helper.h:59 `. */
const SOURCE_PLACE = new RegExp(String.raw`((?:[\w.+@~-]*/)*)${SOURCE_NAME}(?::\d+|\s?\(\d+\))[ ,:]*`)
const IDENTIFIER = /^~?[A-Za-z_]\w*(?:::~?\w+)*(?:\(\))? +(?=\S)/
const CONDITION = /^[^\n]{1,500}? was false\. *(?=\S)/
const AFTER_PARAMETERS = /^(?: const\b| noexcept\b| ?&{1,2}|>)/

const REPLACEMENTS: readonly (readonly [RegExp, string])[] = [
  // Terminal colours.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the expression matches them.
  [/\u001b\[[\d;]*m/g, ''],
  [/(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? )?\[[VIWEF]:onnxruntime:[^\]\n]*\] */g, ''],
  [/\n?\s*stack ?trace:[\s\S]*$/i, ''],
  [/^(?:[ \t]+at |\s*#\d+ 0x|node:internal|file:\/\/).*$\n?/gm, ''],
  [/\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : /g, ''],
  [/\bstd::bad_alloc\b/g, 'there was not enough memory'],
  [/\b(?:onnxruntime|onnx)::(?:\w+::)*/g, ''],
  [/ ?\b0x[0-9a-f]{6,}\b/gi, ''],
]

/** Index of the bracket that closes the one at `at`; -1 if there is none. */
function closing(text: string, at: number, [open, close]: readonly [string, string]): number {
  let depth = 0
  for (let i = at; i < text.length && i - at < MAX_SIGNATURE_CHARACTERS; i++) {
    if (text[i] === open) depth++
    else if (text[i] === close && --depth === 0) return i
  }
  return -1
}

/**
 * The text after a C++ signature in GCC's format: `void ns::f(int) const [with T = int] `; unchanged without
 * one.
 */
function withoutSignature(text: string): string {
  let at = 0
  for (;;) {
    const open = text.indexOf('(', at)
    if (open < 0 || text.slice(at, open).includes('\n')) return text
    const close = closing(text, open, ['(', ')'])
    if (close < 0) return text
    at = close + 1
    for (let more = AFTER_PARAMETERS.exec(text.slice(at)); more !== null; ) {
      at += more[0].length
      more = AFTER_PARAMETERS.exec(text.slice(at))
    }
    // A lambda, an anonymous namespace, operator().
    if (text.startsWith('::', at) || text[at] === '(') continue
    if (text.startsWith(' [with ', at)) {
      const end = closing(text, at + 1, ['[', ']'])
      if (end > 0) at = end + 1
    }
    return text.slice(at).trimStart()
  }
}

function withoutSourcePlaces(text: string): string {
  let kept = ''
  let rest = text
  for (let found = SOURCE_PLACE.exec(rest); found !== null; found = SOURCE_PLACE.exec(rest)) {
    const [whole, folders = ''] = found
    kept += rest.slice(0, found.index)
    const behind = rest.slice(found.index + whole.length)
    // A location with folders is followed by the signature, one without folders only by the name.
    const words = folders === '' ? behind.replace(IDENTIFIER, '') : withoutSignature(behind)
    rest = words.replace(CONDITION, '')
  }
  return kept + rest
}

/** Names of nodes look like paths: `/encoder/layer.0/MatMul`. A path starts with a folder that exists. */
function isLocal(path: string): boolean {
  const [, first, second] = path.split('/')
  return existsSync(dirname(path)) || (second !== undefined && existsSync(`/${first}/${second}`))
}

function shortened(path: string): string {
  return path.lastIndexOf('/') > 0 && isLocal(path) ? basename(path) : path
}

const QUOTED_PATH = /(?<!Name:)(["'])(\/[^"'\n]+)\1/g
const PLAIN_PATH = /(?<![\w.:/\\"'-])\/(?:[^\s/"'<>|:;,()[\]{}]+\/)+[^\s/"'<>|:;,()[\]{}]*/g

function withoutPaths(text: string, folders: readonly string[]): string {
  let short = text
  for (const folder of folders.toSorted((a, b) => b.length - a.length)) {
    if (folder.length < 2) continue
    short = short.replaceAll(`${folder}/`, '').replaceAll(folder, basename(folder))
  }
  return short
    .replace(
      /Load model from (\/[^\n]*?) failed:/g,
      (_, path: string) => `Load model from ${basename(path)} failed:`,
    )
    .replace(QUOTED_PATH, (_, quote: string, path: string) => `${quote}${shortened(path)}${quote}`)
    .replace(PLAIN_PATH, shortened)
}

/**
 * Removes source locations of the runtime, stack traces and local paths.
 * @param folders Absolute folders of this server; paths below them become relative.
 */
export function publicText(text: string, folders: readonly string[] = []): string {
  let plain = text
  for (const [pattern, replacement] of REPLACEMENTS) plain = plain.replace(pattern, replacement)
  // Source locations first: the remaining paths are of this machine.
  plain = withoutPaths(withoutSourcePlaces(plain), folders).trim()
  if (plain.length > MAX_CHARACTERS) plain = `${plain.slice(0, MAX_CHARACTERS)}…`
  return plain === '' && text !== '' ? 'no more is known' : plain
}
