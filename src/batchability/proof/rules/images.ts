/** Convolutions, pooling and resizing: each image of (N, C, ...) is processed independently. */
import { requireSamePlace, unknownShape } from '../broadcast.js'
import {
  axisOf,
  input,
  inputsFrom,
  type Operator,
  optional,
  optionalConstant,
  optionalIntegers,
  type Rule,
  requireConstants,
  unknownValue,
} from '../operator.js'
import { isEqual, literal, literalOf, ONE, type Size } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import {
  combined,
  type Plain,
  Prevented,
  REMEDY,
  type Rows,
  rows,
  type Shape,
  unfollowed,
  type Value,
} from '../values.js'
import { slide } from '../windows.js'

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

function notFirst(): Prevented {
  return new Prevented('works on images: the batch is not its first dimension', REMEDY.batchFirst)
}

/** Rows along the first of at least three dimensions. */
function requireImages(value: Plain): Shape {
  const shape = shapeOf(value)
  if (shape.length < 3) throw unknownShape()
  if (value.kind === 'rows' && value.axis !== 0) throw notFirst()
  return shape
}

function withShape({ sizes }: Operator, value: Plain, whole: Shape): Plain {
  return value.kind === 'rows' ? rows(sizes, whole, value) : unfollowed(value, whole)
}

/** Spatial sizes determined by the operator, which no proof needs. */
function freshBehind({ sizes }: Operator, shape: Shape, kept: number): Shape {
  return shape.map((size, i) => (i < kept ? size : sizes.fresh()))
}

interface Convolution {
  /** Index of the kernel. */
  readonly weight: number
  /**
   * Whether sizes follow from the kernel. They do not if it is transposed or in the runtime's blocked layout.
   */
  readonly isPlain: boolean
  readonly channels: 'first' | 'last'
  /** Index of images that are added. */
  readonly added?: number
}

const convolution =
  ({ weight, isPlain, channels, added }: Convolution): Rule =>
  (operator) => {
    const { sizes, attributes } = operator
    const value = input(operator, 0)
    const shape = requireImages(value)
    const others = operator.inputs.map((_, i) => i).filter((i) => i > 0 && i !== added)
    requireConstants(operator, others, 'kernel')
    const sum = added === undefined ? null : optional(operator, added)
    if (sum !== null) requireBeside(value, sum)
    if (!isPlain) return withShape(operator, value, freshBehind(operator, shape, 1))
    const kernel = shapeOf(input(operator, weight))
    const isLast = attributes.int('channels_last') === 1 || channels === 'last'
    const image = slide(sizes, attributes, {
      image: isLast ? shape.slice(1, -1) : shape.slice(2),
      kernel: isLast ? [] : kernel.slice(2),
    })
    const maps = kernel[0] as Size
    const [first] = shape as [Size]
    return withShape(operator, value, isLast ? [first, ...image, maps] : [first, maps, ...image])
  }

/** What is added to the result must have its shape. */
function requireBeside(value: Plain, sum: Plain): void {
  const isSame =
    value.kind === 'rows' && sum.kind === 'rows' && sum.axis === 0 && sum.shape.length === value.shape.length
  if (isSame) requireSamePlace(value, sum)
  else if (sum.kind === 'count' || value.kind === 'rows' || sum.kind === 'rows') {
    throw new Prevented('adds a constant to images, or images to a constant', REMEDY.batchFirst)
  }
}

const pool: Rule = (operator) => {
  const value = input(operator, 0)
  requireConstants(operator, operator.inputs.map((_, i) => i).slice(1), 'scale')
  const shape = requireImages(value)
  const isLast = operator.attributes.int('channels_last') === 1 || operator.name.includes('Nhwc')
  const kernel = (operator.attributes.ints('kernel_shape') ?? []).map(literal)
  const [first] = shape as [Size]
  const channel = shape[isLast ? shape.length - 1 : 1] as Size
  const image = slide(operator.sizes, operator.attributes, {
    image: isLast ? shape.slice(1, -1) : shape.slice(2),
    kernel,
  })
  const whole = isLast ? [first, ...image, channel] : [first, channel, ...image]
  // Only the first output: the indices are relative to all images.
  return withShape(operator, value, whole)
}

const globalPool: Rule = (operator) => {
  const value = input(operator, 0)
  requireConstants(operator, operator.inputs.map((_, i) => i).slice(1), 'scale')
  const shape = requireImages(value)
  const isLast = operator.attributes.int('channels_last') === 1
  const channel = isLast ? shape.length - 1 : 1
  return withShape(
    operator,
    value,
    shape.map((size, i) => (i === 0 || i === channel ? size : ONE)),
  )
}

/** Converts from the runtime's blocked layout, whose channels are padded. */
const reorderOutput: Rule = (operator) => {
  const { attributes } = operator
  const value = input(operator, 0)
  const [first, , ...image] = requireImages(value)
  const channels = literal(attributes.int('channels') ?? 0)
  const isLast = attributes.int('channels_last') === 1
  const kept = isLast ? [...image, channels] : [channels, ...image]
  return withShape(operator, value, [first as Size, ...kept])
}

const reorderInput: Rule = (operator) => {
  const { sizes, attributes } = operator
  const value = input(operator, 0)
  const shape = requireImages(value)
  const isLast = attributes.int('channels_last') === 1
  const image = isLast ? shape.slice(1, -1) : shape.slice(2)
  return withShape(operator, value, [shape[0] as Size, sizes.fresh(), ...image])
}

/** Sizes change by constant factors; the factor of the batch axis is 1. */
const resize: Rule = (operator) => {
  const { sizes, attributes, version, name } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  const isUpsample = name.endsWith('Upsample')
  const scalesAt = isUpsample || version < 11 ? 1 : 2
  requireConstants(operator, scalesAt === 2 ? [1] : [], 'region')
  const axes = isUpsample ? null : (attributes.ints('axes') ?? null)
  const resized = (axes ?? shape.map((_, i) => i)).map((axis) => axisOf(axis, shape.length))
  const policy = attributes.text('keep_aspect_ratio_policy') ?? 'stretch'
  const at = value.kind === 'rows' ? resized.indexOf(value.axis) : -1
  const scales = scaleNumbers(operator, scalesAt)
  const isCrop = attributes.text('coordinate_transformation_mode') === 'tf_crop_and_resize'
  if (at >= 0) {
    const isKept =
      !isCrop &&
      (scales !== null && scales.length === resized.length
        ? scales[at] === 1
        : policy === 'stretch' && isSameSize(operator, at, shape))
    if (!isKept) throw new Prevented('resizes the batch axis, or may', REMEDY.batchFirst)
  } else requireSteering(operator, scalesAt)
  const target = operator.inputs[3]
  const elements =
    target != null && target.kind !== 'place' && target.kind !== 'rows' ? target.elements : null
  const whole = shape.map((size, i) => {
    const place = resized.indexOf(i)
    if (place < 0) return size
    const scaled = isCrop || scales?.length !== resized.length ? null : evenly(size, scales[place])
    return elements?.[place] ?? scaled ?? sizes.fresh()
  })
  return withShape(operator, value, policy === 'stretch' ? whole : whole.map(() => sizes.fresh()))
}

/** A known size times a factor, if the result is an integer: the rounding of others is not modelled. */
function evenly(size: Size, scale: number | undefined): Size | null {
  const scaled = (literalOf(size) ?? Number.NaN) * (scale ?? Number.NaN)
  return Number.isInteger(scaled) ? literal(scaled) : null
}

function scaleNumbers(operator: Operator, index: number): readonly number[] | null {
  const { attributes } = operator
  const attribute = [attributes.floats('scales'), attributes.ints('scales')].find(
    (some) => some && some.length > 0,
  )
  if (attribute !== undefined) return attribute
  const scales = operator.inputs[index]
  if (scales === undefined || scales === null) return null
  const value = optionalConstant(operator, index, 'scales')
  return value?.numbers ?? null
}

/** Whether the batch axis keeps its size for any number of rows. */
function isSameSize(operator: Operator, at: number, shape: Shape): boolean {
  const target = optional(operator, 3)
  if (target === null || target.kind === 'rows' || target.elements === null) return false
  const size = target.elements[at]
  const value = operator.inputs[0]
  const axis = value?.kind === 'rows' ? value.axis : -1
  return size !== undefined && isEqual(size, shape[axis] as Size)
}

function requireSteering(operator: Operator, scalesAt: number): void {
  requireConstants(operator, scalesAt === 2 ? [2, 3] : [1], 'sizes')
}

/** Rows along the first dimension of every input. */
const alongFirst =
  (whole: (operator: Operator, shapes: readonly Shape[]) => Shape): Rule =>
  (operator) => {
    const values = inputsFrom(operator)
    const shapes = values.map(shapeOf)
    if (!values.every((value): value is Rows => value.kind === 'rows' && value.axis === 0)) {
      if (values.every(({ kind }) => kind !== 'rows')) return combined(values, null)
      throw new Prevented('needs rows in each of its inputs', REMEDY.batchFirst)
    }
    const [first] = values
    for (const value of values)
      requireSamePlace({ ...(first as Rows), shape: [ONE] }, { ...value, shape: [ONE] })
    return rows(operator.sizes, whole(operator, shapes), first as Rows)
  }

const gridSample = alongFirst((_, [image = [], grid = []]) => [...image.slice(0, 2), ...grid.slice(1, -1)])

const columnsToImage: Rule = (operator): Value => {
  const { sizes } = operator
  const value = input(operator, 0)
  const shape = shapeOf(value)
  if (value.kind === 'rows' && value.axis !== 0) throw notFirst()
  const image = optionalIntegers(operator, 1, 'image shape')
  requireConstants(operator, [2], 'block shape')
  if (image === null || shape.length !== 3) throw unknownValue('image shape')
  return withShape(operator, value, [shape[0] as Size, sizes.fresh(), ...image.map(literal)])
}

const shortTime: Rule = (operator): Value => {
  const { sizes } = operator
  const value = input(operator, 0)
  requireConstants(operator, [1, 2, 3], 'frames')
  const shape = shapeOf(value)
  if (value.kind === 'rows' && value.axis !== 0) throw notFirst()
  return withShape(operator, value, [shape[0] as Size, sizes.fresh(), sizes.fresh(), literal(2)])
}

const SPEC = 'https://onnx.ai/onnx/operators/onnx__'
const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'
const NCHWC =
  'https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/graph/contrib_ops/nchwc_schema_defs.cc'
const nchwc = (name: string) => `com.microsoft.nchwc.${name}`
const microsoft = (name: string) => `com.microsoft.${name}`

export const IMAGES: readonly OperatorRule[] = [
  {
    says: 'Each image with constant kernels; the batch is the first dimension.',
    source: `${SPEC}Conv.html`,
    operators: ['Conv', 'ConvInteger'],
    rule: convolution({ weight: 1, isPlain: true, channels: 'first' }),
  },
  {
    says: 'Each image with constant kernels; the batch is the first dimension.',
    source: `${SPEC}ConvTranspose.html`,
    operators: ['ConvTranspose', microsoft('ConvTransposeWithDynamicPads')],
    rule: convolution({ weight: 1, isPlain: false, channels: 'first' }),
  },
  {
    says: 'Each image with constant kernels and scales; the batch is the first dimension.',
    source: `${SPEC}QLinearConv.html`,
    operators: ['QLinearConv', microsoft('QLinearConv')],
    rule: convolution({ weight: 3, isPlain: true, channels: 'first' }),
  },
  {
    says: 'As Conv, then the sum with images of the same shape, then an activation.',
    source: CONTRIB,
    operators: [microsoft('FusedConv')],
    rule: convolution({ weight: 1, isPlain: true, channels: 'first', added: 3 }),
  },
  {
    says: 'As FusedConv, with channels last.',
    source: CONTRIB,
    operators: [microsoft('NhwcFusedConv'), 'com.ms.internal.nhwc.Conv'],
    rule: convolution({ weight: 1, isPlain: true, channels: 'last', added: 3 }),
  },
  {
    says: "As FusedConv, in the runtime's blocked layout.",
    source: NCHWC,
    operators: [nchwc('Conv')],
    rule: convolution({ weight: 1, isPlain: false, channels: 'first', added: 3 }),
  },
  {
    says: 'Each image; the batch is the first dimension. The index output is refused, because it counts across images.',
    source: `${SPEC}MaxPool.html`,
    operators: [
      ...['AveragePool', 'LpPool', 'MaxPool', nchwc('AveragePool'), nchwc('MaxPool')],
      ...[microsoft('NhwcMaxPool'), microsoft('QLinearAveragePool')],
    ],
    rule: pool,
  },
  {
    says: 'Each image; the batch is the first dimension.',
    source: `${SPEC}GlobalAveragePool.html`,
    operators: [
      ...[
        'GlobalAveragePool',
        'GlobalLpPool',
        'GlobalMaxPool',
        nchwc('GlobalAveragePool'),
        nchwc('GlobalMaxPool'),
      ],
      microsoft('QLinearGlobalAveragePool'),
    ],
    rule: globalPool,
  },
  {
    says: 'The layout within an image.',
    source: NCHWC,
    operators: [nchwc('ReorderInput')],
    rule: reorderInput,
  },
  {
    says: 'The layout within an image.',
    source: NCHWC,
    operators: [nchwc('ReorderOutput')],
    rule: reorderOutput,
  },
  {
    says: 'Constant scales or sizes that do not change the batch axis.',
    source: `${SPEC}Resize.html`,
    operators: ['Resize', 'Upsample', nchwc('Upsample')],
    rule: resize,
  },
  {
    says: 'Each image with its own grid; the batch is the first dimension of both.',
    source: `${SPEC}GridSample.html`,
    operators: ['GridSample'],
    rule: gridSample,
  },
  {
    says: 'Into a constant shape; the batch is the first dimension.',
    source: `${SPEC}Col2Im.html`,
    operators: ['Col2Im'],
    rule: columnsToImage,
  },
  {
    says: 'Each signal in constant frames; the batch is the first dimension.',
    source: `${SPEC}STFT.html`,
    operators: ['STFT'],
    rule: shortTime,
  },
]
