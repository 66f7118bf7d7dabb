/** The path of an image that was compiled or found, if its key is not held elsewhere. */
import type { CompiledImage } from '../../src/compile/cache.js'

export function imagePathOf(image: CompiledImage): string {
  if (image.outcome !== 'compiled') throw new Error(`expected an image, got ${image.outcome}`)
  return image.imagePath
}
