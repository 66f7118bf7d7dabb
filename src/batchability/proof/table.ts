/** The structure of rule tables: one entry for all operators with the same rule. */
import type { Rule } from './operator.js'

export interface OperatorRule {
  /** Including a non-standard domain. */
  readonly operators: readonly string[]
  /** Oldest version of the domain that the rule covers; older ones have no rule. */
  readonly since?: number
  /** One sentence for docs/batching.md. */
  readonly says: string
  /** Specification of the operator. */
  readonly source: string
  readonly rule: Rule
}
