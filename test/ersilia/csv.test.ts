import { spawnSync } from 'node:child_process'
import test from 'ava'
import fc from 'fast-check'
import { firstColumn, formatCsv, parseCsv } from '../../src/ersilia/csv.js'
import type { Row } from '../../src/ersilia/orient.js'

function parse(text: string) {
  return parseCsv(Buffer.from(text))
}

function refused(t: import('ava').ExecutionContext, bytes: Uint8Array, message: RegExp): void {
  t.throws(() => parseCsv(bytes), { code: 'INPUT_INVALID', message })
}

const MOLECULES = ['CCO', 'CCC', 'CCCC', 'c1ccccc1']

test('every line is a row, with any line ending and with or without a final one', (t) => {
  for (const [first, ...ends] of [
    ['\n', '\n', '\n', '\n', '\n'],
    ['\r\n', '\r\n', '\r\n', '\r\n', '\r\n'],
    ['\r', '\r', '\r', '\r', '\r'],
    ['\r\n', '\n', '\n', '\n', '\n'],
    ['\n', '\r\n', '\r', '\n', '\r\n'],
    ['\r', '\n', '\r\n', '\r', ''],
  ]) {
    const text = `smiles${first}${MOLECULES.map((one, i) => one + ends[i]).join('')}`
    t.deepEqual(firstColumn(parse(text)), MOLECULES, JSON.stringify(text))
  }
})

test('any molecules keep their positions with any mixture of line endings', (t) => {
  const field = fc.string({ unit: 'grapheme' }).map((text) => text.replaceAll('\0', ''))
  const end = fc.constantFrom('\n', '\r\n', '\r')
  fc.assert(
    fc.property(fc.array(fc.tuple(field, end)), end, (lines, first) => {
      const quoted = lines.map(([text, after]) => `"${text.replaceAll('"', '""')}"${after}`)
      t.deepEqual(
        firstColumn(parse(`smiles${first}${quoted.join('')}`)),
        lines.map(([text]) => text),
      )
    }),
  )
})

test('blank lines are rows, a header alone has none, and no header at all is an error', (t) => {
  t.deepEqual(firstColumn(parse('smiles\n\nCCO\r\n\r\nC\n\n')), ['', 'CCO', '', 'C', ''])
  t.deepEqual(firstColumn(parse('smiles')), [])
  t.deepEqual(firstColumn(parse('smiles\n')), [])
  t.deepEqual(parse('\ufeffsmiles,name\nCCO,x').header, ['smiles', 'name'])
  t.deepEqual(parse('\ufeff"smiles"\r\nCCO').header, ['smiles'])
  refused(t, Buffer.from(''), /got an empty file/)
})

test('quoted fields contain commas and line breaks; a quote within a field is data, an unclosed one an error', (t) => {
  const { lines } = parse('s,n\n"a,b","x\ny"\na"b,c""\nC,"say ""hi"""\n"x\r\ny", z\n')
  t.deepEqual(lines, [
    ['a,b', 'x\ny'],
    ['a"b', 'c""'],
    ['C', 'say "hi"'],
    ['x\r\ny', ' z'],
  ])
  refused(t, Buffer.from('s\n"CCO\nCCC\n'), /expected CSV: .*[Qq]uote/)
})

test('a row with more fields than the header is rejected: a comma may have split its molecule', (t) => {
  t.deepEqual(firstColumn(parse('smiles,name\nCCO\nC,x\nN,y,\n')), ['CCO', 'C', 'N'])
  t.throws(() => firstColumn(parse('smiles\nC\nCC |c:1,3|\n')), {
    code: 'INPUT_INVALID',
    message: /row 2: expected 1 fields as in the header, got 2/,
  })
  t.deepEqual(firstColumn(parse('smiles,smiles\nC,N\n')), ['C'])
})

test('UTF-16 with a byte order mark is read; without one, and other encodings, are rejected with the line', (t) => {
  const text = 'smiles\r\nCCO\r\nÄ😀\r\n'
  const little = Buffer.from(`\ufeff${text}`, 'utf16le')
  const big = Buffer.from(little).swap16()
  for (const bytes of [little, big, Buffer.from(text), Buffer.from(`\ufeff${text}`)])
    t.deepEqual(firstColumn(parseCsv(bytes)), ['CCO', 'Ä😀'])
  const bare = Buffer.from(text, 'utf16le')
  const ascii = Buffer.from('smiles\nCCO\n', 'utf16le')
  refused(t, ascii, /UTF-16 without one/)
  refused(t, Buffer.from(ascii).swap16(), /UTF-16 without one/)
  t.throws(() => parseCsv(bare), { code: 'INPUT_INVALID' })
  refused(t, Buffer.concat([little, Buffer.of(0x41)]), /UTF-16/)
  refused(t, Buffer.concat([big, Buffer.of(0x41)]), /UTF-16/)
  refused(t, Buffer.concat([little, Buffer.of(0, 0xd8, 0x41, 0)]), /unpaired surrogate/)
  refused(t, Buffer.from([0xff, 0xfe, 0, 0, 0x73, 0, 0, 0]), /UTF-32/)
  refused(t, Buffer.from('smiles\nCCO\nna\u00efve\n', 'latin1'), /line 3 is not UTF-8/)
  refused(t, Buffer.from('smiles\r\n\xff', 'latin1'), /line 2/)
  refused(t, Buffer.from([0x73, 0xf0, 0x9f]), /line 1/)
  refused(t, Buffer.from('smiles\nC\nC\0C\n'), /NUL in line 3/)
})

const PYTHON = spawnSync('python3', ['-c', 'import csv']).status === 0

/** The rows that Python's csv reader returns. */
function pythonRows(csv: string): string[][] {
  const program =
    'import csv,io,json,sys;print(json.dumps([r for r in csv.reader(io.TextIOWrapper(sys.stdin.buffer,encoding="utf-8",newline="")) if r]))'
  return JSON.parse(
    spawnSync('python3', ['-c', program], { input: csv, encoding: 'utf8' }).stdout,
  ) as string[][]
}

const HARD: Row[] = [
  [null, null],
  ['a\nb', ' leading'],
  ['a"b', 'c,d'],
  ['\r', ''],
  [-0, 1e21],
  [6, 0.1],
  ['ä😀', '"'],
  [null, 'trailing '],
]

test('written files are read back row by row, including empty rows of one column', (t) => {
  const text = (cell: unknown) => (cell === null ? '' : Object.is(cell, -0) ? '-0.0' : String(cell))
  for (const width of [2, 1]) {
    const header = ['x', 'y'].slice(0, width)
    const rows = HARD.map((row) => row.slice(0, width))
    const expected = rows.map((row) => row.map(text))
    const csv = formatCsv(header, rows)
    t.deepEqual(parse(csv).lines, expected)
    if (PYTHON) t.deepEqual(pythonRows(csv), [header, ...expected])
  }
  t.is(formatCsv(['logp'], [[1.5], [null], ['']]), 'logp\n1.5\n""\n""\n')
  t.is(formatCsv(['a', 'b'], [[null, null]]), 'a,b\n,\n')
})

test('any texts survive being written and read', (t) => {
  const cell = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\0', ''))
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.array(cell, { minLength: 3, maxLength: 3 })),
      (width, all) => {
        const rows = all.map((row) => row.slice(0, width))
        t.deepEqual(parse(formatCsv(['a', 'b', 'c'].slice(0, width), rows)).lines, rows)
      },
    ),
    { numRuns: 300 },
  )
})
