/** The models of the benches, each defined by its name. */

const IMAGE_SHAPE = [3, 96, 96] as const
/** Part of every seed. Increment it when a recipe changes, so that old files are not reused. */
const SEED = 'onecopy-bench-1'

/** Rows of a sequence: tokens of a transformer, steps of an LSTM, ids of an embedding. */
export const SEQUENCE = 32
export const TREE_FEATURES = 64

export type Recipe =
  | { readonly kind: 'mlp'; readonly layers: number; readonly width: number; readonly isMatMul: boolean }
  | { readonly kind: 'int8'; readonly layers: number; readonly width: number }
  | { readonly kind: 'convnet'; readonly layers: number; readonly channels: number }
  | { readonly kind: 'transformer'; readonly layers: number; readonly width: number }
  | { readonly kind: 'lstm'; readonly layers: number; readonly width: number }
  | { readonly kind: 'embedding'; readonly entries: number; readonly width: number }
  | { readonly kind: 'trees'; readonly trees: number; readonly depth: number }
  | { readonly kind: 'tiny'; readonly width: number }

export type RecipeKind = Recipe['kind']

/** Pattern and description of each kind. */
export const RECIPE_HELP: Readonly<Record<RecipeKind, readonly [pattern: string, what: string]>> = {
  mlp: ['mlp-LAYERSxWIDTH[-matmul]', 'fully connected, FP32; Gemm, or MatMul and Add'],
  int8: ['int8-LAYERSxWIDTH', 'the same with 8-bit weights, dynamically quantized'],
  convnet: ['convnet-LAYERSxCHANNELS', `3x3 convolutions on images of ${IMAGE_SHAPE.join('x')}`],
  transformer: [
    'transformer-LAYERSxWIDTH',
    `encoder on ${SEQUENCE} tokens, heads of 64: WIDTH is a multiple`,
  ],
  lstm: ['lstm-LAYERSxWIDTH', `${SEQUENCE} steps of WIDTH numbers`],
  embedding: ['embedding-ENTRIESxWIDTH', `the mean of ${SEQUENCE} rows of a table`],
  trees: [
    'trees-TREESxDEPTH',
    `a tree ensemble on ${TREE_FEATURES} features; its weights are node attributes`,
  ],
  tiny: ['tiny-WIDTH', 'the interface of an mlp of that width, with a few hundred bytes of weights'],
}

/** Names for the usual sizes. */
export const SIZES: Readonly<Record<string, string>> = {
  '20MB': 'mlp-5x1024',
  '200MB': 'mlp-12x2048',
  '1GB': 'mlp-15x4096',
}

export function recipeName(recipe: Recipe): string {
  switch (recipe.kind) {
    case 'mlp':
      return `mlp-${recipe.layers}x${recipe.width}${recipe.isMatMul ? '-matmul' : ''}`
    case 'convnet':
      return `convnet-${recipe.layers}x${recipe.channels}`
    case 'embedding':
      return `embedding-${recipe.entries}x${recipe.width}`
    case 'trees':
      return `trees-${recipe.trees}x${recipe.depth}`
    case 'tiny':
      return `tiny-${recipe.width}`
    default:
      return `${recipe.kind}-${recipe.layers}x${recipe.width}`
  }
}

/** @throws Error with all valid names. */
export function parseRecipe(text: string): Recipe {
  const name = SIZES[text] ?? text
  const [, kind, firstText, , secondText, suffix] =
    name.match(/^([a-z0-9]+)-([1-9]\d*)(x([1-9]\d*))?(-matmul)?$/) ?? []
  const [first, second] = [Number(firstText), Number(secondText)]
  const recipe =
    secondText === undefined ? oneNumber(kind, first) : twoNumbers({ kind, first, second, suffix })
  if (recipe !== null && recipeName(recipe) === name) return recipe
  const patterns = Object.values(RECIPE_HELP).map(([pattern]) => pattern)
  throw new Error(
    `expected a model name (${[...patterns, ...Object.keys(SIZES)].join(', ')}), got ${JSON.stringify(text)}`,
  )
}

function oneNumber(kind: string | undefined, width: number): Recipe | null {
  return kind === 'tiny' ? { kind, width } : null
}

function twoNumbers(parts: {
  readonly kind: string | undefined
  readonly first: number
  readonly second: number
  readonly suffix: string | undefined
}): Recipe | null {
  const { kind, first, second, suffix } = parts
  if (kind === 'mlp') return { kind, layers: first, width: second, isMatMul: suffix !== undefined }
  if (kind === 'convnet') return { kind, layers: first, channels: second }
  if (kind === 'embedding') return { kind, entries: first, width: second }
  if (kind === 'trees') return { kind, trees: first, depth: second }
  if (kind === 'transformer' && second % 64 !== 0) return null
  if (kind === 'int8' || kind === 'transformer' || kind === 'lstm')
    return { kind, layers: first, width: second }
  return null
}

/** Shape of one row of the input, without the batch dimension. */
export function rowShape(recipe: Recipe): readonly number[] {
  switch (recipe.kind) {
    case 'convnet':
      return IMAGE_SHAPE
    case 'transformer':
    case 'lstm':
      return [SEQUENCE, recipe.width]
    case 'embedding':
      return [SEQUENCE]
    case 'trees':
      return [TREE_FEATURES]
    default:
      return [recipe.width]
  }
}

export function recipeSeed(recipe: Recipe): string {
  return `${SEED}/${recipeName(recipe)}`
}
