/** The table of a group of figures: a grid whose cells list their sessions. One cell is in the order of Tab, arrows move. */

import { useLayoutEffect, useRef, useState } from 'preact/hooks'
import { countOf, type Group } from './figures'
import type { FigureRow, Metric } from './types'
import { type RowNames, valueText } from './values'

interface Props {
  group: Group
  rows: FigureRow[]
  total: FigureRow
  names: RowNames
  /** The heading of the first column. */
  heading: string
  /** List the sessions of a row; undefined: of all. */
  onOpen: (row: FigureRow | undefined, metric: Metric) => void
}

/** More rows are shown on demand. */
const FIRST_ROWS = 120

export function FigureTable({ group, rows, total, names, heading, onOpen }: Props) {
  const [all, setAll] = useState(false)
  const [[line, at], setPlace] = useState<[number, number]>([0, 0])
  const table = useRef<HTMLTableElement>(null)
  const moved = useRef(false)
  const shown = all ? rows : rows.slice(0, FIRST_ROWS)
  const { columns } = group
  const lines = shown.length + 1
  const current = [Math.min(line, lines - 1), Math.min(at, columns.length - 1)] as const

  useLayoutEffect(() => {
    if (moved.current) table.current?.querySelector<HTMLElement>('button[tabindex="0"]')?.focus()
    moved.current = false
  }, [line, at])

  const onKeyDown = (event: KeyboardEvent): void => {
    const [row, column] = current
    const target: [number, number] | undefined = {
      ArrowDown: [row + 1, column], ArrowUp: [row - 1, column], ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1],
      Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? lines - 1 : row, columns.length - 1], PageDown: [row + 10, column], PageUp: [row - 10, column],
    }[event.key] as [number, number] | undefined
    if (!target) return
    event.preventDefault()
    moved.current = true
    setPlace([Math.min(lines - 1, Math.max(0, target[0])), Math.min(columns.length - 1, Math.max(0, target[1]))])
  }
  const cells = (row: FigureRow, n: number, isTotal: boolean) => columns.map((column, index) => {
    const value = column.value(row)
    const nothing = value === null || countOf(column.metric, row) === 0
    return (
      <td key={column.id} role="gridcell" class="n">
        <button
          type="button" class="cell" data-testid="cell" data-column={column.id} data-value={value ?? ''} aria-disabled={nothing}
          tabIndex={current[0] === n && current[1] === index ? 0 : -1} onFocus={() => setPlace([n, index])}
          onClick={() => { if (!nothing) onOpen(isTotal ? undefined : row, column.metric) }}
        >
          {valueText(value, column.unit)}{value === null && <span class="visually-hidden"> none</span>}
        </button>
      </td>
    )
  })
  return (
    <>
      <div class="table figures-table">
        <table role="grid" ref={table} aria-label={`Table: ${group.title}`} data-testid="figures" onKeyDown={onKeyDown}>
          <thead>
            <tr role="row"><th scope="col" role="columnheader">{heading}</th>{columns.map(({ id, label }) => <th key={id} scope="col" role="columnheader" class="n">{label}</th>)}</tr>
          </thead>
          <tbody>
            {shown.map((row, n) => (
              <tr key={row.key} role="row" data-testid="figure-row" data-key={row.key ?? ''}><th scope="row" role="rowheader">{names.of(row)}</th>{cells(row, n, false)}</tr>
            ))}
          </tbody>
          <tfoot>
            <tr role="row" data-testid="figure-total"><th scope="row" role="rowheader">Total</th>{cells(total, shown.length, true)}</tr>
          </tfoot>
        </table>
      </div>
      {shown.length < rows.length && <button type="button" class="plain" data-testid="all-rows" onClick={() => setAll(true)}>Show all {rows.length} rows</button>}
    </>
  )
}
