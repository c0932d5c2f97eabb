/**
 * Options of uPlot for a report's chart. The rows are the x axis by their number: buckets are as wide as each other,
 * whatever the clocks do. Series differ in colour (Okabe and Ito), in the shape of their points, and in their lines.
 */

import type uPlot from 'uplot'
import { number } from '../format'
import type { Column, Unit } from './figures'
import { duration, valueText } from './values'

/** Lines of the series, in pixels on and off. */
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]]
/** Points are drawn up to this number of rows. */
const MAX_POINTS = 130
const POINT = 4.5
/** More rows on the y axis are as far apart as these, in seconds. */
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 2_592_000, 8_640_000]
const COUNTS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7, 8].map((power) => n * 10 ** power)).sort((a, b) => a - b)
const SHARES = [0.05, 0.1, 0.2, 0.25, 0.5]
const ROWS = [1, 2, 3, 4, 6, 7, 12, 14, 24, 28, 48, 72, 96, 168, 336, 720, 1440]

/** A shape for each series, drawn around a point; also for the legend. */
export const SHAPES: ((path: Path2D, x: number, y: number, size: number) => void)[] = [
  (path, x, y, r) => {
    path.moveTo(x + r, y)
    path.arc(x, y, r, 0, Math.PI * 2)
  },
  (path, x, y, r) => path.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
  (path, x, y, r) => polygon(path, [[x, y - r * 1.2], [x + r * 1.15, y + r * 0.9], [x - r * 1.15, y + r * 0.9]]),
  (path, x, y, r) => polygon(path, [[x, y - r * 1.3], [x + r * 1.3, y], [x, y + r * 1.3], [x - r * 1.3, y]]),
]

function polygon(path: Path2D, points: [number, number][]): void {
  points.forEach(([x, y], n) => (n ? path.lineTo(x, y) : path.moveTo(x, y)))
  path.closePath()
}

export interface ChartColours {
  text: string
  line: string
  card: string
  series: string[]
}

interface ChartParts {
  columns: Column[]
  unit: Unit
  rows: number
  /** True for people: points without lines between them. */
  dots: boolean
  width: number
  height: number
  colours: ChartColours
  /** The name of a row below the axis. */
  nameOf(row: number): string
  onCursor(row: number | undefined): void
}

export function chartOptions({ columns, unit, rows, dots, width, height, colours, nameOf, onCursor }: ChartParts): uPlot.Options {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`
  const axis = { stroke: colours.text, font, ticks: { show: false } } as const
  const longest = dots ? Math.max(0, ...Array.from({ length: rows }, (_, n) => nameOf(n).length)) : 0
  return {
    width,
    height,
    padding: [10, 14, 0, 0],
    legend: { show: false },
    cursor: {
      drag: { x: false, y: false, setScale: false },
      y: false,
      points: { show: false },
      // Each row is reached anywhere in its column.
      dataIdx: (_, __, closest) => closest,
    },
    scales: {
      x: { time: false, range: [-0.5, Math.max(rows, 1) - 0.5] },
      y: { range: (_, __, max) => [unit === 'score' ? 1 : 0, topOf(max, unit)] },
    },
    axes: [
      {
        ...axis,
        grid: { show: dots, stroke: colours.line, width: 1 },
        incrs: ROWS,
        size: 36,
        gap: 9,
        space: dots ? Math.min(110, Math.max(50, longest * 7)) : 64,
        values: (_, splits) => splits.map((n) => (Number.isInteger(n) && n >= 0 && n < rows ? nameOf(n) : '')),
      },
      {
        ...axis,
        grid: { stroke: colours.line, width: 1 },
        incrs: unit === 'duration' ? SECONDS : unit === 'count' ? COUNTS : unit === 'share' ? SHARES : [0.5, 1],
        space: 34,
        size: (_, values) => Math.max(34, 16 + 6.6 * Math.max(0, ...(values ?? []).map((text) => text.length))),
        values: (_, splits) => splits.map((value) => (unit === 'duration' ? duration(value) : unit === 'share' ? `${Math.round(value * 100)} %` : number(value))),
      },
    ],
    series: [{}, ...columns.map((column, n): uPlot.Series => ({
      label: column.label,
      stroke: colours.series[n]!,
      width: dots ? 0 : 2,
      dash: DASHES[n] ?? [],
      value: (_, value) => valueText(value, column.unit),
      ...(dots && { paths: () => null }),
      points: {
        show: dots || rows <= MAX_POINTS,
        width: 1.5,
        stroke: colours.series[n]!,
        fill: n === 0 ? colours.series[n]! : colours.card,
        dash: [],
        paths: pointPaths(n, dots ? POINT * 1.3 : POINT),
      },
    }))],
    hooks: { setCursor: [(plot) => onCursor(plot.cursor.idx ?? undefined)] },
  }
}

function pointPaths(series: number, size: number): uPlot.Series.Points.PathBuilder {
  return (plot, index, first, last) => {
    const path = new Path2D()
    const shape = SHAPES[series % SHAPES.length]!
    const values = plot.data[index]!
    for (let n = first; n <= last; n += 1) {
      const value = values[n]
      if (value != null) shape(path, plot.valToPos(n, 'x', true), plot.valToPos(value, 'y', true), size * devicePixelRatio)
    }
    return { stroke: path, fill: path, flags: 3 }
  }
}

/** The end of the y axis above the greatest value. */
function topOf(max: number | null, unit: Unit): number {
  if (unit === 'share') return 1
  if (unit === 'score') return 5
  return Math.max(unit === 'duration' ? 10 : 4, (max ?? 0) * 1.08)
}

/** The series nearest to a height of the plot in pixels at a row; undefined if the row has no value. */
export function nearestSeries(plot: uPlot, row: number, top: number): number | undefined {
  let nearest: number | undefined
  let distance = Infinity
  for (let series = 1; series < plot.data.length; series += 1) {
    const value = plot.data[series]?.[row]
    if (value == null) continue
    const gap = Math.abs(plot.valToPos(value, 'y') - top)
    if (gap < distance) [nearest, distance] = [series - 1, gap]
  }
  return nearest
}
