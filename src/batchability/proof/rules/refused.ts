/** Operators that are never allowed on rows, with a specific reason. */
import { inputsFrom, type Rule } from '../operator.js'
import type { OperatorRule } from '../table.js'
import { combined, Prevented, REMEDY } from '../values.js'

/** Rejected on rows; constants stay constant, with an unknown shape. */
const onRows =
  (reason: string, remedy: string): Rule =>
  (operator) => {
    const values = inputsFrom(operator)
    if (values.some(({ kind }) => kind === 'rows')) throw new Prevented(reason, remedy)
    const result = combined(values, null)
    return Array(operator.outputCount).fill(result)
  }

/** As `onRows`; from the number of rows the shape would depend on that number, which no value can express. */
const ofFixedShape =
  (reason: string, remedy: string): Rule =>
  (operator) => {
    if (inputsFrom(operator).some(({ kind }) => kind === 'count'))
      throw new Prevented('gives a shape that depends on the number of rows', REMEDY.fixedSteering)
    return onRows(reason, remedy)(operator)
  }

const always =
  (reason: string, remedy: string): Rule =>
  () => {
    throw new Prevented(reason, remedy)
  }

const SPEC = 'https://onnx.ai/onnx/operators/'
const CONTRIB = 'https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md'
const microsoft = (name: string) => `com.microsoft.${name}`

export const REFUSED: readonly OperatorRule[] = [
  {
    says: 'Refused: derives one scale from all rows.',
    source: `${SPEC}onnx__DynamicQuantizeLinear.html`,
    operators: ['DynamicQuantizeLinear', ...['DynamicQuantizeLSTM', 'DynamicQuantizeMatMul'].map(microsoft)],
    rule: onRows('takes one scale from all rows (dynamic quantisation)', REMEDY.fixedScales),
  },
  {
    says: 'Refused: the shape depends on the data.',
    source: `${SPEC}onnx__NonZero.html`,
    operators: ['NonMaxSuppression', 'NonZero', 'StringNormalizer', 'StringSplit', 'Unique'],
    rule: ofFixedShape(
      'gives a shape that depends on the data of all rows',
      'leave it to the client, or keep shapes fixed',
    ),
  },
  {
    says: 'Refused: selects elements by their position among all rows.',
    source: `${SPEC}onnx__RoiAlign.html`,
    operators: ['EyeLike', 'MaxRoiPool', 'MaxUnpool', 'RoiAlign'],
    rule: onRows("selects by a row's position in the batch", REMEDY.insideRow),
  },
  {
    says: 'Refused: combines every row with every other.',
    source: CONTRIB,
    operators: ['com.microsoft.CDist'],
    rule: onRows('combines every row with every other', REMEDY.pairs),
  },
  {
    says: 'Refused: draws random numbers, which depend on other rows.',
    source: `${SPEC}onnx__RandomNormal.html`,
    operators: [
      'Bernoulli',
      'Multinomial',
      'RandomNormal',
      'RandomNormalLike',
      'RandomUniform',
      'RandomUniformLike',
    ],
    rule: always('draws random numbers', REMEDY.inference),
  },
  {
    says: 'Refused: computes a loss over all rows.',
    source: `${SPEC}onnx__SoftmaxCrossEntropyLoss.html`,
    operators: ['NegativeLogLikelihoodLoss', 'SoftmaxCrossEntropyLoss'],
    rule: onRows('takes a loss over all rows', REMEDY.inference),
  },
]
