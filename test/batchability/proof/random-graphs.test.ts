import test from 'ava'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { probeRandom } from '../../../src/batchability/probe-inputs.js'
import { type Proof, proveRowsApart } from '../../../src/batchability/proof/prove.js'
import { graphsOf, parseModel } from '../../../src/onnx/graph.js'
import { ELEMENT, graph, modelBytes, node, value } from '../../helpers/onnx-builder.js'
import { MIXING } from './mixing-blocks.js'
import { type Block, GraphBuilder, type Random, ROW_WISE } from './random-graphs.js'

const GRAPHS = 1000
const ROWS = 4
/** Values that differ strongly, so that an influence between rows is noticed. */
const SCALES = [1, 50, 1e-3, 5]
const SHAPES = [[6], [4], [3, 4], [5, 6], [4, 2], [2, 4, 6], [3, 2, 4]]

interface Graph {
  readonly bytes: Uint8Array
  readonly dims: readonly number[]
  readonly blocks: readonly string[]
  /** Nodes of the mixing block. */
  readonly mixing: ReadonlySet<string>
}

function randomGraph(random: Random, mixing: readonly [string, Block] | null): Graph {
  const b = new GraphBuilder(random)
  const dims = b.pick(SHAPES)
  const length = 3 + Math.floor(random() * 6)
  const at = Math.floor(random() * length)
  const blocks: string[] = []
  const own = new Set<string>()
  let x = 'x'
  for (let i = 0; i < length; i++) {
    if (i === at && mixing !== null) {
      const before = b.nodes.length
      x = mixing[1](b, x, dims) as string
      for (const inner of graphsOf(graph({ input: [], output: [], node: b.nodes.slice(before) })))
        for (const one of inner.node) own.add(one.name)
      blocks.push(mixing[0])
    }
    const [name, block] = b.pick(Object.entries(ROW_WISE))
    const next = block(b, x, dims)
    if (next === null) continue
    x = next
    blocks.push(name)
  }
  b.nodes.push(node('Identity', [x], ['y']))
  const bytes = modelBytes(
    graph({
      input: [value('x', ELEMENT.float, ['n', ...dims])],
      output: [value('y', ELEMENT.float, ['n', ...dims])],
      node: b.nodes,
      initializer: [...b.initializers.values()],
    }),
    21,
  )
  return { bytes, dims, blocks, mixing: own }
}

function prove({ bytes }: Graph): Proof {
  return proveRowsApart({ model: parseModel(bytes), inputs: ['x'], outputs: ['y'] })
}

/** Null if every row gives the same result alone and together. */
async function disagreement({ bytes, dims }: Graph, random: Random): Promise<string | null> {
  const session = await InferenceSession.create(bytes, {
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
    graphOptimizationLevel: 'basic',
  })
  try {
    const size = dims.reduce((whole, one) => whole * one, 1)
    const data = Float32Array.from(
      { length: size * ROWS },
      (_, i) => (random() * 2 - 1) * (SCALES[Math.floor(i / size)] as number),
    )
    const run = async (elements: Float32Array, rows: number) => {
      const { y } = await session.run({ x: new Tensor('float32', elements, [rows, ...dims]) })
      return (y as Tensor).data as Float32Array
    }
    const all = await run(data, ROWS)
    if (all.length !== data.length) return `${all.length} values for ${data.length}`
    for (let row = 0; row < ROWS; row++) {
      const alone = await run(data.slice(row * size, (row + 1) * size), 1)
      const scale = alone.reduce((most, one) => Math.max(most, Math.abs(one)), 1e-6)
      for (const [i, one] of alone.entries()) {
        const other = all[row * size + i] as number
        if (Math.abs(one - other) > 1e-3 * scale) return `row ${row}: ${one} alone, ${other} together`
      }
    }
    return null
  } finally {
    await session.release()
  }
}

test('a thousand random graphs of row-wise operators are proven, and their rows agree alone and together', async (t) => {
  const used = new Map<string, number>()
  for (let seed = 1; seed <= GRAPHS; seed++) {
    const random = probeRandom(seed)
    const made = randomGraph(random, null)
    const proof = prove(made)
    const described = `seed ${seed}: ${made.blocks.join(', ')}`
    if (!proof.isProven) {
      t.fail(`${described}: ${proof.node} (${proof.operator}) ${proof.reason}`)
      continue
    }
    const difference = await disagreement(made, random)
    if (difference !== null) t.fail(`${described}: ${difference}`)
    for (const block of made.blocks) used.set(block, (used.get(block) ?? 0) + 1)
  }
  t.deepEqual(
    Object.keys(ROW_WISE).filter((name) => (used.get(name) ?? 0) < 10),
    [],
    'every block was used',
  )
})

test('with one operator that mixes rows at a random position all are rejected, and its node is named', (t) => {
  const mixing = Object.entries(MIXING)
  for (let seed = 1; seed <= GRAPHS; seed++) {
    const made = randomGraph(probeRandom(seed), mixing[seed % mixing.length] as [string, Block])
    const proof = prove(made)
    const described = `seed ${seed}: ${made.blocks.join(', ')}`
    if (proof.isProven) t.fail(`${described}: proven`)
    else if (!made.mixing.has(proof.node)) {
      t.fail(`${described}: ${proof.node} (${proof.operator}) ${proof.reason}, which is not the mixing block`)
    } else if (proof.reason.includes('without a rule')) t.fail(`${described}: ${proof.reason}`)
  }
  t.pass()
})
