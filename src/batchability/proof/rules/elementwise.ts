/** Operators that compute each output element from the input elements at the same position. */
import { broadcast } from '../broadcast.js'
import { arithmetic } from '../elements.js'
import {
  constantInput,
  input,
  inputsFrom,
  type Operator,
  optional,
  optionalConstant,
  type Rule,
} from '../operator.js'
import { isExact, literalOf } from '../sizes.js'
import type { OperatorRule } from '../table.js'
import { type Plain, Prevented, REMEDY, unfollowed, type Value } from '../values.js'

function withoutElements(value: Plain): Plain {
  return value.kind === 'rows' ? value : unfollowed(value)
}

/** The first input is the data; all others must be constant. */
const unary: Rule = (operator) => {
  for (let index = 1; index < operator.inputs.length; index++) optionalConstant(operator, index, 'settings')
  const value = input(operator, 0)
  const whole = withoutElements(value)
  return arithmetic(operator, [value], whole) ?? whole
}

const identity: Rule = (operator) => {
  const [value] = operator.inputs
  return value ?? input(operator, 0)
}

/** TensorProto.DataType of int32 and int64: known integers stay known. */
const EXACT_TYPES = [6, 7]

const cast: Rule = (operator) => {
  const [value] = operator.inputs
  const isInteger = EXACT_TYPES.includes(operator.attributes.int('to') ?? 0)
  if (value?.kind === 'place' && isInteger) return value
  const known = input(operator, 0)
  const isKept = isInteger && (known.kind === 'rows' || known.elements?.every(isExact))
  return isKept ? known : withoutElements(known)
}

/** Only the type of the second input matters; only the first input is data. */
const castLike: Rule = (operator) => withoutElements(input(operator, 0))

const spread: Rule = (operator) => {
  const values = inputsFrom(operator)
  const whole = broadcast(operator.sizes, values)
  return arithmetic(operator, values, whole) ?? whole
}

/** Limits are scalars. */
const clip: Rule = (operator) => {
  const value = input(operator, 0)
  for (const index of [1, 2]) optionalConstant(operator, index, 'limits')
  return withoutElements(value)
}

function isTraining(operator: Operator): boolean {
  if (operator.version < 12 || optional(operator, 2) === null) return false
  const { elements } = constantInput(operator, 2, 'training mode')
  return elements?.length !== 1 || literalOf(elements[0] as never) !== 0
}

/** For inference it passes its input through, whatever the ratio; the mask is all true. */
const dropout: Rule = (operator): Value[] => {
  if (isTraining(operator)) throw new Prevented('is in training mode, or may be', REMEDY.inference)
  const value = withoutElements(input(operator, 0))
  return [value, value]
}

/** A bias along the last dimension, added before the function. */
const biased: Rule = (operator) => broadcast(operator.sizes, inputsFrom(operator))

const SPEC = 'https://onnx.ai/onnx/operators/'

export const ELEMENTWISE: readonly OperatorRule[] = [
  {
    says: 'Each element independently.',
    source: SPEC,
    operators: [
      ...[
        'Abs',
        'Acos',
        'Acosh',
        'Asin',
        'Asinh',
        'Atan',
        'Atanh',
        'BitwiseNot',
        'Ceil',
        'Celu',
        'Cos',
        'Cosh',
      ],
      ...[
        'Elu',
        'Erf',
        'Exp',
        'Floor',
        'Gelu',
        'HardSigmoid',
        'HardSwish',
        'IsInf',
        'IsNaN',
        'LeakyRelu',
        'Log',
      ],
      ...[
        'Mish',
        'Neg',
        'Not',
        'Reciprocal',
        'Relu',
        'Round',
        'Selu',
        'Shrink',
        'Sigmoid',
        'Sign',
        'Sin',
        'Sinh',
      ],
      ...['Softplus', 'Softsign', 'Sqrt', 'Swish', 'Tan', 'Tanh', 'ThresholdedRelu', 'RegexFullMatch'],
      ...['Binarizer', 'CategoryMapper', 'LabelEncoder'].map((name) => `ai.onnx.ml.${name}`),
      ...['Gelu', 'QuickGelu'].map((name) => `com.microsoft.${name}`),
    ],
    rule: unary,
  },
  { says: 'Returns the input unchanged.', source: SPEC, operators: ['Identity'], rule: identity },
  { says: 'Each element independently.', source: `${SPEC}onnx__Cast.html`, operators: ['Cast'], rule: cast },
  {
    says: 'Each element independently.',
    source: `${SPEC}onnx__CastLike.html`,
    operators: ['CastLike'],
    rule: castLike,
  },
  {
    says: 'Element by element; constants have size 1 along the batch, and rows have the same batch axis.',
    source: 'https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md',
    since: 7,
    operators: [
      ...['Add', 'And', 'BitShift', 'BitwiseAnd', 'BitwiseOr', 'BitwiseXor', 'Div', 'Equal', 'Greater'],
      ...['GreaterOrEqual', 'Less', 'LessOrEqual', 'Mod', 'Mul', 'Or', 'PRelu', 'Pow', 'StringConcat', 'Sub'],
      ...['Where', 'Xor'],
    ],
    rule: spread,
  },
  {
    says: 'Element by element over all inputs.',
    source: 'https://github.com/onnx/onnx/blob/main/docs/Broadcasting.md',
    since: 8,
    operators: ['Max', 'Mean', 'Min', 'Sum'],
    rule: spread,
  },
  {
    says: 'Each element independently, within constant limits.',
    source: `${SPEC}onnx__Clip.html`,
    operators: ['Clip'],
    rule: clip,
  },
  {
    says: 'Returns the input unchanged, not in training mode.',
    source: `${SPEC}onnx__Dropout.html`,
    since: 7,
    operators: ['Dropout'],
    rule: dropout,
  },
  {
    says: 'Each element with a bias.',
    source: 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md',
    operators: ['com.microsoft.BiasGelu', 'com.microsoft.FastGelu'],
    rule: biased,
  },
]
