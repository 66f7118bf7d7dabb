import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { FAMILIES, ruleFor } from '../../../src/batchability/proof/rules.js'
import { PROJECT_ROOT } from '../../helpers/shared.js'

const PAGE = readFileSync(join(PROJECT_ROOT, 'docs', 'batching.md'), 'utf8')
const OPERATORS = PAGE.slice(PAGE.indexOf('## Operators'))

test('docs/batching.md lists exactly the operators with rules, with rule and source', (t) => {
  const expected = Object.entries(FAMILIES).flatMap(([family, entries]) => [
    `### ${family}`,
    ...entries.map(({ operators, since, says, source }) => {
      const names = operators.map((name) => `\`${name}\``).join(', ')
      const version = since === undefined ? '' : ` (from version ${since})`
      return `| ${names}${version} | [${says.replace(/\.$/, '')}](${source}) |`
    }),
  ])
  const written = OPERATORS.split('\n').filter((line) => /^(### |\| `)/.test(line))
  t.deepEqual(written, expected)
})

test('every operator has one rule', (t) => {
  const names = Object.values(FAMILIES).flatMap((entries) => entries.flatMap(({ operators }) => operators))
  t.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  )
  t.true(names.length > 200, `${names.length}`)
  for (const name of names) t.not(ruleFor(name, 1000), null, name)
})
