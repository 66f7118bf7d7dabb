/** The path of an image that was really made or found, where no key is held elsewhere. */
import type { CompiledImage } from '../../src/compile/cache.js'

export function imagePathOf(image: CompiledImage): string {
  if (image.outcome !== 'compiled') throw new Error(`expected an image, got ${image.outcome}`)
  return image.imagePath
}
