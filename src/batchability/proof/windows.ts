/** Sizes of an image behind a window that slides over it. https://onnx.ai/onnx/operators/onnx__Conv.html */
import type { Attributes } from '../../onnx/attributes.js'
import { literal, literalOf, type Size, type Sizes } from './sizes.js'

interface Window {
  readonly kernel: number
  readonly stride: number
  readonly dilation: number
  readonly before: number
  readonly after: number
  readonly padding: string
}

function outputSize(size: number, { kernel, stride, dilation, before, after, padding }: Window): number {
  if (padding.startsWith('SAME')) return Math.ceil(size / stride)
  const pads = padding === 'VALID' ? 0 : before + after
  return Math.max(0, Math.floor((size + pads - dilation * (kernel - 1) - 1) / stride) + 1)
}

/** Known where everything is; else the same unknown for the same window over the same size. */
export function slide(
  sizes: Sizes,
  attributes: Attributes,
  { image, kernel }: { readonly image: readonly Size[]; readonly kernel: readonly Size[] },
): Size[] {
  const count = image.length
  const strides = attributes.ints('strides') ?? []
  const dilations = attributes.ints('dilations') ?? []
  const pads = attributes.ints('pads') ?? []
  const padding = attributes.text('auto_pad') ?? 'NOTSET'
  return image.map((size, i) => {
    const taps = kernel[i] === undefined ? null : literalOf(kernel[i])
    // How windows are counted that begin in the padding differs between versions.
    if (taps === null || (attributes.int('ceil_mode') ?? 0) !== 0) return sizes.fresh()
    const window = {
      ...{ kernel: taps, stride: strides[i] ?? 1, dilation: dilations[i] ?? 1, padding },
      ...{ before: pads[i] ?? 0, after: pads[count + i] ?? 0 },
    }
    const known = literalOf(size)
    if (known !== null) return literal(outputSize(known, window))
    return sizes.derived(`window ${JSON.stringify(window)}`, [size], true)
  })
}
