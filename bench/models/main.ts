/** Generates one model from the command line. */
import { parseArgs } from 'node:util'
import { formatBytes } from '../../src/units.js'
import { parseRecipe } from './recipes.js'
import { ensureModel } from './store.js'

const USAGE = `Usage: node dist/bench/models/main.js KIND [options] --out DIR

  mlp      --layers N --width N [--matmul]    input [batch, width] -> output [batch, 10]
  convnet  --layers N --channels N            input [batch, 3, 96, 96] -> output [batch, 10]
  tiny     --width N                          an mlp's interface, a few hundred bytes of weights

Writes DIR/NAME/1/model.onnx, the layout of a model repository. The same options give the same bytes.
`

/** Null where the arguments make no model. */
function modelName(
  kind: string | undefined,
  options: Record<string, string | boolean | undefined>,
): string | null {
  const { layers, width, channels, matmul } = options
  if (kind === 'mlp') return `mlp-${layers}x${width}${matmul === true ? '-matmul' : ''}`
  if (kind === 'convnet') return `convnet-${layers}x${channels}`
  return kind === 'tiny' ? `tiny-${width}` : null
}

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      layers: { type: 'string' },
      width: { type: 'string' },
      channels: { type: 'string' },
      matmul: { type: 'boolean' },
      out: { type: 'string' },
      help: { type: 'boolean' },
    },
  })
  const name = modelName(positionals[0], values)
  if (values.help === true || name === null || values.out === undefined) {
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
