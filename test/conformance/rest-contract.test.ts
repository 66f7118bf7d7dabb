import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { PROJECT_ROOT, sharedPath, testWithShared } from '../helpers/shared.js'

const TABLE = readFileSync(join(PROJECT_ROOT, 'docs', 'rest-conformance.md'), 'utf8')

/** Number of bullets and table rows of a Markdown file by section, without table heads. */
function linesBySection(markdown: string): Map<string, number> {
  const sections = new Map<string, number>()
  let section = ''
  for (const line of markdown.split('\n')) {
    if (line.startsWith('## ')) section = line.slice(3).trim()
    const isRow = line.startsWith('|') && !/^\|[-| ]+\|$/.test(line)
    // The line before the separator of a table is its head.
    if (/^\|[-| ]+\|$/.test(line)) sections.set(section, (sections.get(section) ?? 1) - 1)
    else if (isRow || line.startsWith('- ')) sections.set(section, (sections.get(section) ?? 0) + 1)
  }
  return sections
}

test('every test that the conformance table cites exists', (t) => {
  const cited = [...TABLE.matchAll(/\]\(\.\.\/(test\/[^)]+)\): (.*?)(?=<br>| \|)/g)]
  t.true(cited.length > 60)
  for (const [, file = '', title = ''] of cited) {
    const path = join(PROJECT_ROOT, file)
    t.true(existsSync(path), file)
    t.true(readFileSync(path, 'utf8').includes(title), `${file} has no test "${title}"`)
  }
})

testWithShared('the table covers every line of the contract', ['rest-contract.md'], async (t) => {
  const contract = linesBySection(readFileSync(sharedPath('rest-contract.md'), 'utf8'))
  const table = linesBySection(TABLE)
  for (const [section, lines] of contract) {
    if (section === '') continue
    t.true((table.get(section) ?? 0) >= lines, `${section}: ${table.get(section) ?? 0} of ${lines} lines`)
  }
})
