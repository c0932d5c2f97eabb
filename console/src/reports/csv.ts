/** The shown table as CSV (RFC 4180): durations in seconds, shares between 0 and 1. */

import type { Group } from './figures'
import type { By, Report } from './types'

/** A byte order mark: without it, Excel does not read UTF-8. */
const MARK = '\ufeff'

export function csvOf(group: Group, report: Report, by: By, staffName: (id: string) => string): string {
  const names = by === 'staff' ? ['staff_id', 'name'] : by === 'none' ? [] : ['from', 'to']
  const head = [...names, ...group.columns.map(({ id, unit }) => (unit === 'duration' ? `${id}_seconds` : id))]
  const rows = (by === 'none' ? [report.total] : report.rows).map((row) => {
    const name = by === 'staff' ? [row.key, row.key == null ? '' : staffName(row.key)] : by === 'none' ? [] : [row.start, row.end]
    return [...name, ...group.columns.map((column) => column.value(row))]
  })
  return MARK + [head, ...rows].map((cells) => `${cells.map(field).join(',')}\r\n`).join('')
}

/** A field; text that a spreadsheet would run as a formula begins with an apostrophe. */
function field(value: string | number | null | undefined): string {
  if (typeof value === 'number') return String(value)
  const text = value ?? ''
  const harmless = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless
}

/** Let the browser save a text as a file. */
export function saveFile(name: string, type: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  // The browser has taken the address by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
