/** All rules, and the lookup of the rule for an operator and version. */
import { ATTENTION } from './rules/attention.js'
import { CONTROL_FLOW } from './rules/control-flow.js'
import { ELEMENTWISE } from './rules/elementwise.js'
import { IMAGES } from './rules/images.js'
import { LOOKUPS } from './rules/lookups.js'
import { PARTS } from './rules/parts.js'
import { PRODUCTS } from './rules/products.js'
import { QUANTISED } from './rules/quantised.js'
import { REDUCTIONS } from './rules/reductions.js'
import { REFUSED } from './rules/refused.js'
import { SEQUENCES } from './rules/sequences.js'
import { SHAPES } from './rules/shapes.js'
import { STRETCHES } from './rules/stretches.js'
import { TRADITIONAL } from './rules/traditional.js'
import type { OperatorRule } from './table.js'

/** By family, in the order of docs/batching.md. */
export const FAMILIES: Readonly<Record<string, readonly OperatorRule[]>> = {
  'Element by element': ELEMENTWISE,
  'Shapes and layout': [...SHAPES, ...STRETCHES],
  'Joining and cutting': PARTS,
  'Looking up and writing': LOOKUPS,
  'Reductions and normalisation': REDUCTIONS,
  'Matrix products': PRODUCTS,
  Images: IMAGES,
  'Recurrent layers': SEQUENCES,
  Attention: ATTENTION,
  Quantised: QUANTISED,
  'Traditional machine learning': TRADITIONAL,
  'Control flow': CONTROL_FLOW,
  Refused: REFUSED,
}

const BY_NAME: ReadonlyMap<string, OperatorRule> = new Map(
  Object.values(FAMILIES)
    .flat()
    .flatMap((entry) => entry.operators.map((name) => [name, entry] as const)),
)

/** The operator name including a non-standard domain. */
export function operatorName(domain: string, opType: string): string {
  return domain === '' || domain === 'ai.onnx' ? opType : `${domain}.${opType}`
}

/** Null if there is no rule for this version. */
export function ruleFor(name: string, version: number): OperatorRule | null {
  const entry = BY_NAME.get(name)
  return entry === undefined || version < (entry.since ?? 1) ? null : entry
}
