/** Models of the fault tests, created once for all tests, and their compile cache. */
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
  /** Contains one model, `slow`, with a run time set by the request. */
  readonly slow: string
  /** Contains one model, `big`, of 100 MB, so that compiling and writing can be interrupted. */
  readonly big: string
  /** Compiled models, for starts without compilation. */
  readonly cacheDir: string
  remove(): void
}

/** Different numbers in each layer, because equal weights would be stored once. */
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
