/** Two small charts without a library: horizontal bars with their spread, and lines. */
import { spread } from './statistics.js'

const WIDTH = 720
const MARGIN = { top: 52, right: 96, bottom: 44, left: 220 }
const BAR_HEIGHT = 26
const BAR_GAP = 14
const LINE_HEIGHT = 240
/** Lines with few points have dots at the points. */
const MAX_DOTS = 24
const MAX_MARKS = 6
const COLORS = [
  '#2a6f97',
  '#c1666b',
  '#5a8f5a',
  '#8d6a9f',
  '#b08d2f',
  '#4f5d75',
  '#2fa3a0',
  '#a0522d',
  '#7f7f2a',
  '#d17bb0',
]

export interface Bar {
  readonly label: string
  readonly value: number
  /** Drawn as a whisker. */
  readonly min?: number
  readonly max?: number
}

export interface BarChart {
  readonly kind: 'bars'
  readonly title: string
  readonly unit: string
  readonly bars: readonly Bar[]
}

/** Medians of several values for each label, with their spread. */
export function spreadChart(
  { title, unit }: Pick<BarChart, 'title' | 'unit'>,
  samples: Iterable<readonly [label: string, values: readonly number[]]>,
): BarChart {
  const bars = Array.from(samples, ([label, values]): Bar => {
    const { median, min, max } = spread(values)
    return { label, value: median, min, max }
  })
  return { kind: 'bars', title, unit: `${unit}, median and spread`, bars }
}

export interface LineChart {
  readonly kind: 'lines'
  readonly title: string
  readonly xLabel: string
  readonly yLabel: string
  /** Logarithmic axis with a mark at every measured value. */
  readonly isLogX?: boolean
  readonly series: readonly {
    readonly label: string
    readonly points: readonly (readonly [number, number])[]
  }[]
}

export type Chart = BarChart | LineChart

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}

interface TextOptions {
  readonly x: number
  readonly y: number
  readonly anchor?: 'start' | 'middle' | 'end'
  readonly size?: number
  readonly color?: string
}

function text(content: string, { x, y, anchor = 'start', size = 13, color = '#222' }: TextOptions): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}" font-size="${size}" fill="${color}">${escapeText(content)}</text>`
}

function document(height: number, title: string, parts: readonly string[]): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    text(title, { x: 16, y: 26, size: 16 }),
    ...parts,
    '</svg>',
    '',
  ].join('\n')
}

function label(value: number): string {
  if (Number.isInteger(value)) return String(value)
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

/** The next 1, 2 or 5 times a power of ten, for a readable axis. */
function niceCeiling(value: number): number {
  if (!(value > 0)) return 1
  const magnitude = 10 ** Math.floor(Math.log10(value))
  const factor = [1, 2, 5, 10].find((candidate) => candidate * magnitude >= value) ?? 10
  return factor * magnitude
}

function drawBars({ title, unit, bars }: BarChart): string {
  const end = niceCeiling(Math.max(...bars.map((bar) => bar.max ?? bar.value)))
  const plotWidth = WIDTH - MARGIN.left - MARGIN.right
  const x = (value: number) => MARGIN.left + (Math.max(0, value) / end) * plotWidth
  const height = MARGIN.top + bars.length * (BAR_HEIGHT + BAR_GAP) + MARGIN.bottom
  const parts = bars.flatMap((bar, index) => {
    const top = MARGIN.top + index * (BAR_HEIGHT + BAR_GAP)
    const middle = top + BAR_HEIGHT / 2
    const color = COLORS[index % COLORS.length]
    const whisker =
      bar.min === undefined || bar.max === undefined
        ? []
        : [
            `<path d="M${x(bar.min).toFixed(1)} ${middle}H${x(bar.max).toFixed(1)}M${x(bar.min).toFixed(1)} ${middle - 5}v10M${x(bar.max).toFixed(1)} ${middle - 5}v10" stroke="#222" fill="none"/>`,
          ]
    return [
      text(bar.label, { x: MARGIN.left - 10, y: middle + 5, anchor: 'end' }),
      `<rect x="${MARGIN.left}" y="${top}" width="${(x(bar.value) - MARGIN.left).toFixed(1)}" height="${BAR_HEIGHT}" fill="${color}"/>`,
      ...whisker,
      text(label(bar.value), { x: x(bar.max ?? bar.value) + 8, y: middle + 5 }),
    ]
  })
  return document(height, title, [...parts, text(unit, { x: MARGIN.left, y: height - 16, color: '#666' })])
}

/** Positions of the values of an axis, from 0 to 1, and its marks. */
interface Axis {
  readonly position: (value: number) => number
  readonly marks: readonly number[]
}

function linearAxis(values: readonly number[]): Axis {
  const end = niceCeiling(Math.max(...values))
  return { position: (value) => value / end, marks: [0, 0.25, 0.5, 0.75, 1].map((part) => end * part) }
}

/** A linear axis. Few measured values become the marks. */
function measuredAxis(values: readonly number[]): Axis {
  const axis = linearAxis(values)
  const measured = [...new Set(values)].sort((a, b) => a - b)
  return measured.length > MAX_MARKS
    ? axis
    : { position: (value) => value / (Math.max(...measured) || 1), marks: measured }
}

function logAxis(values: readonly number[]): Axis {
  const marks = [...new Set(values)].sort((a, b) => a - b)
  const [first = 1, last = 1] = [marks[0], marks.at(-1)]
  const range = Math.log(last / first) || 1
  return { position: (value) => Math.log(value / first) / range, marks }
}

function drawLines({ title, xLabel, yLabel, isLogX = false, series: given }: LineChart): string {
  // Values that could not be measured are omitted.
  const series = given.map((line) => ({ ...line, points: line.points.filter(([, y]) => Number.isFinite(y)) }))
  const points = series.flatMap((line) => line.points)
  const across = (isLogX ? logAxis : measuredAxis)(points.map(([x]) => x))
  const up = linearAxis(points.map(([, y]) => y))
  const left = 70
  const plotWidth = WIDTH - left - 190
  const bottom = MARGIN.top + LINE_HEIGHT
  const x = (value: number) => left + across.position(value) * plotWidth
  const y = (value: number) => bottom - up.position(Math.max(0, value)) * LINE_HEIGHT
  const grid = [
    ...up.marks.flatMap((mark) => [
      `<path d="M${left} ${y(mark).toFixed(1)}h${plotWidth}" stroke="#ddd"/>`,
      text(label(mark), { x: left - 8, y: y(mark) + 4, anchor: 'end', size: 11 }),
    ]),
    ...across.marks.map((mark) =>
      text(label(mark), { x: x(mark), y: bottom + 16, anchor: 'middle', size: 11 }),
    ),
  ]
  const lines = series.flatMap((line, index) => {
    const color = COLORS[index % COLORS.length] ?? '#222'
    const path = line.points.map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(' ')
    return [
      `<polyline points="${path}" fill="none" stroke="${color}" stroke-width="2"/>`,
      ...(line.points.length > MAX_DOTS
        ? []
        : line.points.map(
            ([px, py]) =>
              `<circle cx="${x(px).toFixed(1)}" cy="${y(py).toFixed(1)}" r="3.5" fill="${color}"/>`,
          )),
      text(line.label, { x: left + plotWidth + 12, y: MARGIN.top + 14 + index * 20, color }),
    ]
  })
  const axes = [
    text(xLabel, { x: left + plotWidth / 2, y: bottom + 36, anchor: 'middle', color: '#666' }),
    text(yLabel, { x: left, y: MARGIN.top - 4, size: 11, color: '#666' }),
  ]
  return document(bottom + MARGIN.bottom + 8, title, [...grid, ...lines, ...axes])
}

export function drawChart(chart: Chart): string {
  return chart.kind === 'bars' ? drawBars(chart) : drawLines(chart)
}
