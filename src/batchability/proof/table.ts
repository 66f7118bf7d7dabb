/** How a table of rules is written: one line for operators that the same rule describes. */
import type { Rule } from './operator.js'

export interface OperatorRule {
  /** With their domain, where that is not the standard one. */
  readonly operators: readonly string[]
  /** Oldest version of the domain that the rule describes; older ones have none. */
  readonly since?: number
  /** In one sentence, for docs/batching.md. */
  readonly says: string
  /** Where the operator is defined. */
  readonly source: string
  readonly rule: Rule
}
