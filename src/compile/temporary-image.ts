/** Compiles a model for inspection without keeping the result. */
import { open, readFile } from 'node:fs/promises'
import { parseModel } from '../onnx/graph.js'
import type { GraphProto, ModelProto } from '../onnx/onnx_pb.js'
import { readExactly } from '../segment/io.js'
import type { SegmentHeader } from '../segment/layout.js'
import { readHeader } from '../segment/write.js'
import { closeCache, openTemporaryCache } from './cache.js'
import { Compiler } from './compile.js'

export interface TemporaryImage {
  /** The unmodified model. */
  readonly original: ModelProto & { graph: GraphProto }
  /** The graph that workers load; the original if it could not be compiled. */
  readonly compiled: GraphProto
  readonly header: SegmentHeader
  /** The image, which exists until `use` returns. */
  readonly imagePath: string
  readonly compileMs: number
}

/**
 * Compiles a model in a temporary cache, passes it to `use`, and removes the cache.
 * @throws OnecopyError of Compiler.compile, and errors of `use`.
 */
export async function withCompiled<T>(
  modelPath: string,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
  use: (oneOff: TemporaryImage) => Promise<T>,
): Promise<T> {
  const cache = await openTemporaryCache()
  const compiler = new Compiler({ cache, ...options })
  try {
    const startedMs = performance.now()
    const image = await compiler.compile(modelPath)
    const compileMs = performance.now() - startedMs
    if (image.outcome === 'held') throw new Error('expected an image, because no key is held')
    compiler.close()
    const { imagePath } = image
    await using file = await open(imagePath)
    const header = await readHeader(file)
    const compiled = parseModel(await readExactly(file, header.graph.bytes, header.graph.offsetBytes)).graph
    const original = parseModel(await readFile(modelPath))
    return await use({ original, compiled, header, imagePath, compileMs })
  } finally {
    compiler.close()
    await closeCache(cache)
  }
}
