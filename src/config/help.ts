/** Formats help texts in 80 columns: paragraphs and a table of flags. */
const COLUMNS = 80
const FLAG_COLUMNS = 26

export interface FlagHelp {
  readonly flag: string
  readonly value: string
  readonly help: string
  /** Null: the help shows no default. */
  readonly default: string | null
}

/** Wraps at spaces; lines that start with a space are kept as they are. */
export function wrap(text: string, columns = COLUMNS): string[] {
  if (text.startsWith(' ')) return [text]
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** One flag: usage on the left, wrapped help on the right. */
export function flagLines({ flag, value, help, default: byDefault }: FlagHelp): string[] {
  const usage = `  --${flag}${value === '' ? '' : ` ${value}`}`
  const [first = '', ...rest] = wrap(
    byDefault === null ? help : `${help} [${byDefault}]`,
    COLUMNS - FLAG_COLUMNS - 1,
  )
  const indent = ' '.repeat(FLAG_COLUMNS + 1)
  const head =
    usage.length > FLAG_COLUMNS ? [usage, indent + first] : [`${usage.padEnd(FLAG_COLUMNS)} ${first}`]
  return [...head, ...rest.map((line) => indent + line)]
}
