/** What the servers under faults serve, made once for all of their tests, and their compile cache. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  ELEMENT,
  floats,
  graph,
  modelBytes,
  node,
  slowModel,
  value,
  writeModel,
} from '../helpers/onnx-builder.js'
import { TEMPORARY_PREFIX } from '../helpers/temporary-names.js'

export const BIG_WIDTH = 2048
const BIG_LAYERS = 6

export interface FaultModels {
  /** One model, `slow`, that computes as long as a request says. */
  readonly slow: string
  /** One model, `big`, of 100 MB: compiling and writing it take long enough to be interrupted. */
  readonly big: string
  /** Compiled models, for starts that shall not compile. */
  readonly cacheDir: string
  remove(): void
}

/** Numbers that no two layers share: equal weights would be stored once. */
function scatteredFloats(count: number, seed: number): Float32Array {
  const numbers = new Float32Array(count)
  let state = seed
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
    numbers[i] = state / 2 ** 36
  }
  return numbers
}

function bigModel(): Uint8Array {
  const shape = ['batch', BIG_WIDTH]
  const layers = Array.from({ length: BIG_LAYERS }, (_, layer) => layer)
  return modelBytes(
    graph({
      input: [value('x0', ELEMENT.float, shape)],
      output: [value(`x${BIG_LAYERS}`, ELEMENT.float, shape)],
      node: layers.map((layer) => node('MatMul', [`x${layer}`, `weight${layer}`], [`x${layer + 1}`])),
      initializer: layers.map((layer) =>
        floats(`weight${layer}`, [BIG_WIDTH, BIG_WIDTH], scatteredFloats(BIG_WIDTH * BIG_WIDTH, layer + 1)),
      ),
    }),
  )
}

export function makeFaultModels(): FaultModels {
  const folder = mkdtempSync(join(tmpdir(), TEMPORARY_PREFIX))
  return {
    slow: writeModel(join(folder, 'slow'), 'slow', slowModel()),
    big: writeModel(join(folder, 'big'), 'big', bigModel()),
    cacheDir: join(folder, 'cache'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
