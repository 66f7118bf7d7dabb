/**
 * Who is ahead, said in words in the table itself: the ratio to onecopy of the same round, and whether all rounds agree.
 */
import { formatSpread, ratios } from './statistics.js'

export type Better = 'higher' | 'lower'

/** What onecopy gains over a variant, round by round: above 1 onecopy is ahead. */
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

/** How much of a limit onecopy reaches; nobody is ahead of a limit. */
export function limitCell(onecopy: readonly number[], limit: readonly number[]): string {
  return `${formatSpread(ratios(onecopy, limit))}x of it`
}

function verdict({ min, max }: { readonly min: number; readonly max: number }): string {
  if (min > 1) return 'ahead'
  return max < 1 ? '**behind**' : 'level'
}
