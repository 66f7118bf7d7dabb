/**
 * Extreme rows: values that clients may send but ordinary trial rows do not contain. Together with ordinary
 * rows they cross thresholds, become the maximum or minimum, and carry NaN and infinities.
 *
 * There are three rounds with different combinations, because one extreme can hide another: no value exceeds
 * a maximum that is NaN.
 */
import { DATATYPES, type Datatype, elementCount, type TensorData, type TensorSpec } from '../tensor.js'
import { floatBits, isFloat } from './float-bits.js'
import { type Row, type RowOptions, rowShape, type Trial, trialElements } from './probe-inputs.js'

type Draw = (random: () => number, element: number) => number

const SPARSE_EVERY = 64
const constant =
  (value: number): Draw =>
  () =>
    value
const scaled =
  (scale: number): Draw =>
  (random) =>
    scale * (2 * random() - 1)
/** Nonzero values of one sign. */
const sided =
  (scale: number): Draw =>
  (random) =>
    scale * (0.5 + random() / 2)
/** A few elements with this value, including the first; the others are drawn with `draw`. */
const among =
  (value: number, draw: Draw): Draw =>
  (random, element) =>
    element % SPARSE_EVERY === 0 ? value : draw(random, element)

const { NaN: nan, POSITIVE_INFINITY: infinite, NEGATIVE_INFINITY: lowest } = Number

/** By round. The first kinds of each round are tried even for slow models. */
const EXTREME_FLOATS: readonly (readonly Draw[])[] = [
  [
    ...[scaled(1e6), constant(0), scaled(1e-6), sided(1e3), sided(-1e6), scaled(100), scaled(1e-3)],
    among(1e6, constant(0)),
  ],
  [
    ...[constant(nan), constant(infinite), constant(lowest), among(nan, scaled(1)), scaled(1e6)],
    ...[among(infinite, scaled(1)), constant(0), sided(1e30)],
  ],
  [
    sided(1e6),
    constant(0),
    sided(255),
    sided(1e-6),
    sided(3e4),
    sided(1e-30),
    sided(10),
    among(-1e6, sided(1)),
  ],
]

/** For integer inputs that are not known to be indices. */
const EXTREME_INTEGERS: readonly (readonly Draw[])[] = [
  [
    ...[sided(1e6), constant(0), constant(1), sided(1e3), sided(-1e6), sided(100), sided(3e4)],
    among(1e6, constant(0)),
  ],
  [
    constant(-1),
    sided(1e6),
    sided(-100),
    constant(0),
    sided(255),
    among(-1e6, constant(1)),
    sided(10),
    sided(1e4),
  ],
  [
    sided(3e4),
    constant(0),
    sided(1e6),
    constant(2),
    sided(127),
    among(3e4, constant(1)),
    sided(1e5),
    sided(50),
  ],
]

/** Indices as fractions of the table size: last entries, first entries, and the whole range. */
const EXTREME_INDICES: readonly Draw[] = [
  constant(1),
  constant(0),
  (random) => random(),
  (random) => random() ** 8,
  (random) => 1 - random() ** 8,
  constant(0.5),
  among(1, constant(0)),
  among(0, constant(1)),
]

const EXTREME_WORDS: readonly (readonly string[])[] = [
  [''],
  ['x'.repeat(2000)],
  ['\u00fc\u4e16\u{1f600}'],
  ['-1e6', '0', '1e6'],
  ['nan', 'NaN', 'inf', '-inf'],
  [' ', '\t a \n'],
  ['a', 'A', 'b'.repeat(300), '\u0001'],
  ['true', 'None', 'null'],
]

/** Kinds of extreme rows per round. */
export const EXTREME_KINDS = 8
export const EXTREME_ROUNDS = 3

interface ExtremeChoice {
  /** Index of the kind within its round. */
  readonly kind: number
  readonly round: number
  /** Size of the table that the input indexes; null for other inputs. */
  readonly indicesBelow: number | null
}

function integersOf(datatype: Datatype, { kind, round, indicesBelow }: ExtremeChoice): Draw {
  if (indicesBelow !== null) {
    const share = EXTREME_INDICES[kind] as Draw
    return (random, element) => Math.min(indicesBelow - 1, Math.floor(share(random, element) * indicesBelow))
  }
  const draw = EXTREME_INTEGERS[round]?.[kind] as Draw
  const { bytes } = DATATYPES[datatype]
  const isSigned = datatype.startsWith('INT')
  const highest = 2 ** (8 * Math.min(bytes ?? 8, 6) - (isSigned ? 1 : 0)) - 1
  return (random, element) => {
    const value = Math.round(draw(random, element))
    return isSigned ? Math.max(-highest, Math.min(highest, value)) : Math.min(highest, Math.abs(value))
  }
}

/** Elements of one extreme row. For BOOL the kind decides between all false, all true and random. */
function extremeElements(
  datatype: Datatype,
  count: number,
  options: { readonly choice: ExtremeChoice; readonly trial: Trial; readonly random: () => number },
): TensorData {
  const { choice, trial, random } = options
  const { kind, round } = choice
  if (datatype === 'BYTES') {
    const words = EXTREME_WORDS[(kind + round) % EXTREME_WORDS.length] as readonly string[]
    return Array.from({ length: count }, () => words[Math.floor(random() * words.length)] as string)
  }
  const data = new DATATYPES[datatype].storage(count)
  if (datatype === 'BOOL') {
    return kind % 3 === 2 ? trialElements(datatype, count, trial, random) : data.fill((kind % 3) as never)
  }
  const draw = isFloat(datatype) ? (EXTREME_FLOATS[round]?.[kind] as Draw) : integersOf(datatype, choice)
  const isWide = data instanceof BigInt64Array || data instanceof BigUint64Array
  for (let i = 0; i < count; i++) {
    const value = draw(random, i)
    data[i] = (isFloat(datatype) ? floatBits(datatype, value) : isWide ? BigInt(value) : value) as never
  }
  return data
}

/**
 * One extreme row. If there are float inputs, integers and words that a model may reject stay ordinary except
 * in the last round, because a rejected row tests nothing.
 */
export function extremeRow(
  inputs: readonly TensorSpec[],
  { round, kind, ...options }: RowOptions & { readonly round: number; readonly kind: number },
): Row {
  const { trial, indexLimits, random } = options
  const hasFloats = inputs.some(({ datatype }) => isFloat(datatype))
  return inputs.map(({ name, datatype, ...spec }) => {
    const shape = rowShape({ name, datatype, ...spec }, trial.dimension)
    const indicesBelow = indexLimits.get(name) ?? null
    const isChoosy = !isFloat(datatype) && datatype !== 'BOOL' && indicesBelow === null
    const isExtreme = !isChoosy || !hasFloats || round === EXTREME_ROUNDS - 1
    const choice = { kind, round, indicesBelow }
    const data = isExtreme
      ? extremeElements(datatype, elementCount(shape), { choice, trial, random })
      : trialElements(datatype, elementCount(shape), trial, random)
    return { name, datatype, shape, data }
  })
}
