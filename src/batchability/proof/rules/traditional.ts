/**
 * ai.onnx.ml operators: one sample per row of [N, C]. They treat a one-dimensional tensor as one sample, so
 * rows in it would be the features of that sample.
 *
 * https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md
 */
import { requireSamePlace, unknownShape } from '../broadcast.js'
import { constantInput, input, inputsFrom, type Operator, type Rule } from '../operator.js'
import { ONE, type Size } from '../sizes.js'
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

function shapeOf({ shape }: Plain): Shape {
  if (shape === null) throw unknownShape()
  return shape
}

/** Rows in the first of exactly two dimensions. */
function samples(value: Plain): Plain {
  const shape = shapeOf(value)
  if (value.kind !== 'rows') return value
  if (shape.length !== 2 || value.axis !== 0) {
    throw new Prevented(
      'takes a sample for each row of [N, C], and the batch is not the first of two dimensions',
      'give it a tensor of two dimensions, [N, 1] where there is one feature',
    )
  }
  return value
}

function outputs({ sizes }: Operator, value: Plain, shapes: readonly Shape[]): Value[] {
  return shapes.map((shape) => (value.kind === 'rows' ? rows(sizes, shape, value) : unfollowed(value, null)))
}

/** Scores of each sample. */
const regressor: Rule = (operator) =>
  outputs(operator, samples(input(operator, 0)), [[ONE, operator.sizes.fresh()]])

/** A label and scores of each sample. */
const classifier: Rule = (operator) =>
  outputs(operator, samples(input(operator, 0)), [[ONE], [ONE, operator.sizes.fresh()]])

/** Transforms features within each sample. */
const features: Rule = (operator) => {
  const value = samples(input(operator, 0))
  return value.kind === 'rows' ? value : unfollowed(value)
}

/** Adds a dimension of categories. */
const oneHotEncoder: Rule = (operator) => {
  const { sizes, attributes } = operator
  const value = input(operator, 0)
  const integers = attributes.ints('cats_int64s')?.length ?? 0
  const count = integers > 0 ? integers : (attributes.texts('cats_strings')?.length ?? 0)
  const width: Size = { coefficient: count, unknowns: [] }
  const whole = [...shapeOf(value), width]
  return value.kind === 'rows' ? rows(sizes, whole, value) : unfollowed(value, whole)
}

/** Selects constant columns. */
const extractor: Rule = (operator) => {
  const { sizes } = operator
  const value = samples(input(operator, 0))
  const columns = shapeOf(constantInput(operator, 1, 'columns'))
  const width = columns.length === 0 ? ONE : sizes.product(...columns)
  return value.kind === 'rows' ? rows(sizes, [ONE, width], value) : unfollowed(value, null)
}

const vectorizer: Rule = (operator) => {
  const { sizes } = operator
  const values = inputsFrom(operator).map(samples)
  const [first] = values
  if (first === undefined) throw unknownShape()
  if (values.every(({ kind }) => kind !== 'rows')) return combined(values, null)
  if (!values.every((value): value is Rows => value.kind === 'rows')) {
    throw new Prevented('joins rows to a constant', REMEDY.batchFirst)
  }
  for (const value of values) requireSamePlace(values[0] as Rows, value)
  return rows(sizes, [ONE, sizes.fresh()], values[0] as Rows)
}

/** Counts in each text of [N, C]. */
const counts: Rule = (operator) => {
  const value = samples(input(operator, 0))
  const whole = [ONE, operator.sizes.fresh()]
  return value.kind === 'rows' ? rows(operator.sizes, whole, value) : unfollowed(value, null)
}

const ml = (name: string) => `ai.onnx.ml.${name}`
const SPEC = 'https://onnx.ai/onnx/operators/onnx_aionnxml_'

export const TRADITIONAL: readonly OperatorRule[] = [
  {
    says: 'One sample per row of [N, C].',
    source: `${SPEC}TreeEnsembleRegressor.html`,
    operators: ['LinearRegressor', 'SVMRegressor', 'TreeEnsemble', 'TreeEnsembleRegressor'].map(ml),
    rule: regressor,
  },
  {
    says: 'One sample per row of [N, C].',
    source: `${SPEC}TreeEnsembleClassifier.html`,
    operators: ['LinearClassifier', 'SVMClassifier', 'TreeEnsembleClassifier'].map(ml),
    rule: classifier,
  },
  {
    says: 'One sample per row of [N, C].',
    source: `${SPEC}Scaler.html`,
    operators: ['Imputer', 'Normalizer', 'Scaler'].map(ml),
    rule: features,
  },
  {
    says: 'Each element independently.',
    source: `${SPEC}OneHotEncoder.html`,
    operators: [ml('OneHotEncoder')],
    rule: oneHotEncoder,
  },
  {
    says: 'Constant columns of each row of [N, C].',
    source: `${SPEC}ArrayFeatureExtractor.html`,
    operators: [ml('ArrayFeatureExtractor')],
    rule: extractor,
  },
  {
    says: 'One sample per row of [N, C].',
    source: `${SPEC}FeatureVectorizer.html`,
    operators: [ml('FeatureVectorizer')],
    rule: vectorizer,
  },
  {
    says: 'One text per row of [N, C].',
    source: 'https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html',
    operators: ['TfIdfVectorizer'],
    rule: counts,
  },
]
