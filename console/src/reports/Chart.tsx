/** A chart of a group of figures, for the mouse and the keyboard: it is a slider through the rows. */

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { type ChartColours, chartOptions, nearestSeries, SHAPES } from './chart-options'
import type { Column } from './figures'
import type { FigureRow, Metric } from './types'
import { type RowNames, valueText } from './values'

interface Props {
  title: string
  columns: Column[]
  rows: FigureRow[]
  names: RowNames
  /** True for people. */
  dots: boolean
  /** List the sessions of a row. */
  onOpen: (row: FigureRow, metric: Metric) => void
}

const HEIGHT = 260

export function Chart({ title, columns, rows, names, dots, onOpen }: Props) {
  const host = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const touchedRow = useRef<number>(undefined)
  const [row, setRow] = useState<number>()
  /** The series whose sessions Enter lists. */
  const [series, setSeries] = useState(0)
  const theme = useThemeRevision()

  useLayoutEffect(() => {
    const element = host.current!
    const { unit } = columns[0]!
    const options = chartOptions({
      columns, unit, dots, rows: rows.length, width: element.clientWidth, height: HEIGHT, colours: coloursOf(element),
      nameOf: (n) => names.shortOf(rows[n]!),
      // While the chart has the focus, its place stays when the mouse leaves; a finger "leaves" after each touch.
      onCursor: (n) => {
        if (n !== undefined || !element.contains(document.activeElement)) setRow(n)
      },
    })
    const values = columns.map((column) => rows.map((item) => column.value(item)))
    const created = (plot.current = new uPlot(options, [rows.map((_, n) => n), ...values], element.querySelector<HTMLElement>('.chart-area')!))
    const observer = new ResizeObserver(() => created.setSize({ width: element.clientWidth, height: HEIGHT }))
    observer.observe(element)
    return () => {
      observer.disconnect()
      created.destroy()
    }
  }, [columns, rows, names, dots, theme])
  useEffect(() => setSeries(0), [columns])

  const shown = row === undefined ? undefined : rows[row]
  const open = (n: number | undefined, chosen: number): void => {
    const item = n === undefined ? undefined : rows[n]
    if (item) onOpen(item, columns[chosen]!.metric)
  }
  const moveTo = (n: number): void => {
    const target = Math.min(rows.length - 1, Math.max(0, n))
    setRow(target)
    plot.current?.setCursor({ left: plot.current.valToPos(target, 'x'), top: 0 }, false)
  }
  const onKeyDown = (event: KeyboardEvent): void => {
    const at = row ?? -1
    const page = Math.max(2, Math.round(rows.length / 10))
    const step = { ArrowRight: at + 1, ArrowLeft: row === undefined ? rows.length - 1 : at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: rows.length - 1 }[event.key]
    if (event.ctrlKey || event.metaKey || event.altKey) return
    if (step !== undefined) moveTo(step)
    else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') setSeries((series + (event.key === 'ArrowDown' ? 1 : columns.length - 1)) % columns.length)
    else if (event.key === 'Enter') open(row, series)
    else return
    event.preventDefault()
  }
  const text = shown ? `${names.of(shown)}: ${columns.map((column) => `${column.label.toLowerCase()} ${valueText(column.value(shown), column.unit)}`).join(', ')}` : 'No place chosen'
  return (
    <div class="chart" ref={host}>
      <ul class="legend" aria-hidden="true">
        {columns.map((column, n) => (
          <li key={column.id} class={`series series-${n + 1} ${columns.length > 1 && n === series ? 'is-chosen' : ''}`}>
            <Mark shape={n} filled={n === 0} /> <span>{column.label}</span>
            <b>{shown ? valueText(column.value(shown), column.unit) : ''}</b>
          </li>
        ))}
        <li class="place">{shown ? names.of(shown) : ''}</li>
      </ul>
      <div
        class="chart-area" data-testid="chart" tabIndex={0} role="slider" aria-orientation="horizontal" aria-label={`Chart: ${title}`}
        aria-valuemin={1} aria-valuemax={Math.max(1, rows.length)} aria-valuenow={(row ?? 0) + 1}
        aria-valuetext={shown && columns.length > 1 ? `${text}. Enter lists: ${columns[series]!.label.toLowerCase()}` : text}
        aria-describedby="chart-keys" onKeyDown={onKeyDown} onBlur={() => setRow(undefined)}
        onClick={(event) => {
          const area = plot.current?.over.getBoundingClientRect()
          const at = plot.current?.cursor.idx ?? undefined
          if (!plot.current || !area || at === undefined || event.clientY > area.bottom || event.clientX < area.left) return
          const nearest = nearestSeries(plot.current, at, event.clientY - area.top)
          // A finger has no way to look first: its first touch shows the values, the second one opens.
          const touched = event instanceof PointerEvent && event.pointerType === 'touch' && touchedRow.current !== at
          touchedRow.current = at
          if (nearest !== undefined && !touched) open(at, nearest)
        }}
      />
      <p id="chart-keys" class="visually-hidden">Left and right arrow keys move through the rows, up and down choose the figure, Enter lists its conversations. The table below has the same numbers.</p>
    </div>
  )
}

function Mark({ shape, filled }: { shape: number; filled: boolean }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const theme = useThemeRevision()
  useLayoutEffect(() => {
    const element = canvas.current!
    const context = element.getContext('2d')
    if (!context) return
    const path = new Path2D()
    SHAPES[shape % SHAPES.length]!(path, 14, 14, 8)
    context.clearRect(0, 0, 28, 28)
    context.strokeStyle = context.fillStyle = getComputedStyle(element).color
    context.lineWidth = 3
    if (filled) context.fill(path)
    context.stroke(path)
  }, [shape, filled, theme])
  return <canvas ref={canvas} class="mark" width={28} height={28} />
}

/** The colours of the page's theme: canvases have no style sheet. */
function coloursOf(host: HTMLElement): ChartColours {
  const style = getComputedStyle(host)
  return {
    text: style.color,
    line: style.borderTopColor,
    card: style.backgroundColor,
    series: [...host.querySelectorAll('.series')].map((element) => getComputedStyle(element).color),
  }
}

/** A number that changes with the page's colours. */
function useThemeRevision(): number {
  const [revision, setRevision] = useState(0)
  useEffect(() => {
    const change = (): void => setRevision((n) => n + 1)
    const dark = matchMedia('(prefers-color-scheme: dark)')
    const observer = new MutationObserver(change)
    observer.observe(document.documentElement, { attributeFilter: ['data-theme'] })
    dark.addEventListener('change', change)
    return () => {
      observer.disconnect()
      dark.removeEventListener('change', change)
    }
  }, [])
  return revision
}
