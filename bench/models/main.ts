/** Generates one model from the command line. */
import { parseArgs } from 'node:util'
import { formatBytes } from '../../src/units.js'
import { parseRecipe, RECIPE_HELP, SIZES } from './recipes.js'
import { ensureModel } from './store.js'

const KINDS = Object.values(RECIPE_HELP).map(([pattern, what]) => `  ${pattern.padEnd(28)}${what}`)
const ALIASES = Object.entries(SIZES).map(([alias, name]) => `  ${alias.padEnd(28)}${name}`)

const USAGE = `Usage: node dist/bench/models/main.js NAME --out DIR

${[...KINDS, ...ALIASES].join('\n')}

Every kind maps input [batch, ...] to output [batch, 10]. Writes DIR/NAME/1/model.onnx, the layout of a model
repository. The same name gives the same bytes.
`

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { out: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
  })
  const [name] = positionals
  if (values.help === true || name === undefined || values.out === undefined) {
    process.stderr.write(USAGE)
    return values.help === true ? 0 : 2
  }
  const { path, bytes, sha256, isReused } = await ensureModel(parseRecipe(name), values.out)
  process.stdout.write(`${path}  ${formatBytes(bytes)}  sha256 ${sha256}${isReused ? '  (reused)' : ''}\n`)
  return 0
}

main(process.argv.slice(2)).then(
  (exitCode) => {
    process.exitCode = exitCode
  },
  (thrown: unknown) => {
    process.stderr.write(`${thrown instanceof Error ? thrown.message : String(thrown)}\n`)
    process.exitCode = 2
  },
)
