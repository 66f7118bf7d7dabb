/** Statistics over several rounds: the median and the spread. */

/** The value below which a fraction `q` of the values lies; NaN for no values. */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) return Number.NaN
  const sorted = Float64Array.from(values).sort()
  const position = (sorted.length - 1) * q
  const below = sorted[Math.floor(position)] ?? Number.NaN
  const above = sorted[Math.ceil(position)] ?? Number.NaN
  return below + (above - below) * (position - Math.floor(position))
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

export function spread(values: readonly number[]): Spread {
  return { median: quantile(values, 0.5), min: Math.min(...values), max: Math.max(...values) }
}

/** Ratios round by round, because values of one round saw the same noise. */
export function ratios(over: readonly number[], under: readonly number[]): Spread {
  return spread(over.map((value, round) => value / (under[round] ?? Number.NaN)))
}

/**
 * Change per step of evenly spaced values: the median of the slopes between all pairs (Theil-Sen), which is
 * robust against outliers.
 */
export function trendSlope(values: readonly number[]): number {
  const slopes: number[] = []
  for (const [i, from] of values.entries()) {
    for (let j = i + 1; j < values.length; j++) slopes.push(((values[j] ?? Number.NaN) - from) / (j - i))
  }
  return quantile(slopes, 0.5)
}

/** Three significant digits, or all integer digits. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value)
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

/** Bytes as MB, without the unit. */
export function formatMb(bytes: number): string {
  return formatNumber(bytes / 1e6)
}

export function formatSpread({ median, min, max }: Spread): string {
  if (!Number.isFinite(median)) return '-'
  return `${formatNumber(median)} (${formatNumber(min)}-${formatNumber(max)})`
}
