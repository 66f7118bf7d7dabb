/** Cells that compare onecopy with another variant: the ratio per round, and whether all rounds agree. */
import { formatSpread, ratios } from './statistics.js'

export type Better = 'higher' | 'lower'

/** The gain of onecopy over a variant, round by round. Above 1, onecopy is ahead. */
export function leadCell(options: {
  readonly onecopy: readonly number[]
  readonly other: readonly number[]
  readonly better: Better
}): string {
  const { onecopy, other, better } = options
  const lead = better === 'higher' ? ratios(onecopy, other) : ratios(other, onecopy)
  if (!Number.isFinite(lead.median)) return '-'
  return `${verdict(lead)} ${formatSpread(lead)}x`
}

/** The share of a limit that onecopy reaches. */
export function limitCell(onecopy: readonly number[], limit: readonly number[]): string {
  return `${formatSpread(ratios(onecopy, limit))}x of the limit`
}

function verdict({ min, max }: { readonly min: number; readonly max: number }): string {
  if (min > 1) return 'ahead'
  return max < 1 ? '**behind**' : 'level'
}
