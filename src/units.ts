/** Durations and sizes as people write them, and back. */

const DURATION_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
const SIZE_BYTES: Record<string, number> = { '': 1, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** Milliseconds of `500ms`, `30s`, `2m`, `1h`; null where the text is none of these. */
export function parseDurationMs(text: string): number | null {
  const [, amount, unit] = text.match(/^(\d+(?:\.\d+)?)(ms|s|m|h)$/) ?? []
  const factor = DURATION_MS[unit ?? '']
  return amount === undefined || factor === undefined ? null : Math.round(Number(amount) * factor)
}

/** Bytes of `1048576`, `64KiB`, `16MiB`, `2GiB`; null where the text is none of these. */
export function parseBytes(text: string): number | null {
  const [, amount, unit] = text.match(/^(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)?$/) ?? []
  const factor = SIZE_BYTES[unit ?? '']
  return amount === undefined || factor === undefined ? null : Math.round(Number(amount) * factor)
}

/** A size for a person: `201.3 MB`, decimal units as in the documentation's tables. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  for (const [unit, factor] of [
    ['kB', 1e3],
    ['MB', 1e6],
  ] as const) {
    if (bytes < factor * 999.95) return `${(bytes / factor).toFixed(1)} ${unit}`
  }
  return `${(bytes / 1e9).toFixed(2)} GB`
}

/** How long ago, for a person, in the largest unit that fits: `45 s`, `12 min`, `5 h`, `3 d`. */
export function formatAge(ms: number): string {
  for (const [unit, unitMs] of [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
  ] as const) {
    if (ms >= unitMs) return `${Math.floor(ms / unitMs)} ${unit}`
  }
  return `${Math.max(0, Math.floor(ms / 1000))} s`
}

/** A duration for a person: `820 ms`, `2.4 s`. */
export function formatMs(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}
