/** What the user asks of the reports, and the same in the fragment of the address, so that a link shows the same report. */

import { daysOf, type Days, isDay, isZone, momentsOf, type Preset, PRESETS } from './range'
import { GROUPS, type GroupId, isMetric } from './figures'
import type { Basis, By, Metric, ReportQuery } from './types'

export interface Cell {
  metric: Metric
  /** The key of a row; undefined: the total. */
  key: string | null | undefined
}

export interface ReportForm {
  preset: Preset
  /** For the preset `custom`. */
  days: Days
  zone: string
  by: By
  /** Empty: each figure's own time. */
  basis: Basis | ''
  inHours: boolean
  group: GroupId
  /** The cell whose sessions are shown. */
  cell: Cell | undefined
}

export const BY: [By, string][] = [['none', 'Nothing: the total'], ['hour', 'Hour'], ['day', 'Day'], ['week', 'Week'], ['month', 'Month'], ['staff', 'Person']]
export const BASIS: [Basis | '', string][] = [
  ['', 'Their own time'], ['asked', 'The question'], ['answered', 'The answer'], ['closed', 'The closing'],
]

/** Read the parameters of a fragment; what is missing or invalid has its default. `zone` is the default time zone. */
export function readForm(text: string, zone: string, now: number): ReportForm {
  const given = new URLSearchParams(text)
  const get = (name: string): string => given.get(name) ?? ''
  const zoneGiven = get('zone')
  const chosenZone = isZone(zoneGiven) ? zoneGiven : zone
  const days = { from: get('from'), to: get('to') }
  const preset = oneOf(PRESETS, get('range')) ?? '7d'
  const metric = get('metric')
  return {
    preset,
    days: isDay(days.from) && isDay(days.to) && days.from <= days.to ? days : daysOf(preset, chosenZone, now),
    zone: chosenZone,
    by: oneOf(BY, get('by')) ?? 'day',
    basis: oneOf(BASIS, get('basis')) ?? '',
    inHours: get('hours') === 'open',
    group: GROUPS.find(({ id }) => id === get('show'))?.id ?? 'conversations',
    cell: isMetric(metric) ? { metric, key: given.has('key') ? get('key') || null : undefined } : undefined,
  }
}

/** The fragment of a report, with `#`. */
export function reportHref(form: ReportForm): string {
  const { preset, days, cell } = form
  const parameters = new URLSearchParams({
    range: preset,
    ...(preset === 'custom' && { from: days.from, to: days.to }),
    zone: form.zone,
    by: form.by,
    ...(form.basis && { basis: form.basis }),
    ...(form.inHours && { hours: 'open' }),
    show: form.group,
    ...(cell && { metric: cell.metric, ...(cell.key !== undefined && { key: cell.key ?? '' }) }),
  })
  return `#reports?${parameters}`
}

/** Change a form. For a single day, hours replace days; for more days, days replace hours. */
export function changeForm(form: ReportForm, changes: Partial<ReportForm>, now: number): ReportForm {
  const next = { ...form, ...changes, cell: changes.cell }
  if (changes.preset) next.days = daysOf(changes.preset, next.zone, now)
  if (changes.preset === 'custom') next.days = form.preset === 'custom' ? form.days : daysOf(form.preset, form.zone, now)
  if (changes.preset || changes.days) {
    const single = next.days.from === next.days.to
    if (single && form.by === 'day') next.by = 'hour'
    if (!single && form.by === 'hour') next.by = 'day'
  }
  return next
}

/** The question to the server. */
export function queryOf(form: ReportForm, now: number): ReportQuery {
  const days = form.preset === 'custom' ? form.days : daysOf(form.preset, form.zone, now)
  return {
    ...momentsOf(days, form.zone), timezone: form.zone, by: form.by, ...(form.basis && { basis: form.basis }), in_hours: form.inHours,
  }
}

function oneOf<T extends string>(choices: readonly (readonly [T, string])[], value: string): T | undefined {
  return choices.find(([name]) => name === value)?.[0]
}
