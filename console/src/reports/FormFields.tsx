/** What is asked of the reports. Each change asks at once. */

import { useMemo } from 'preact/hooks'
import { BASIS, BY, type ReportForm } from './form'
import { daysOf, isDay, PRESETS, type Preset, zonesWith } from './range'
import type { Basis, By } from './types'

interface Props {
  form: ReportForm
  now: number
  onChange: (changes: Partial<ReportForm>) => void
}

export function FormFields({ form, now, onChange }: Props) {
  const zones = useMemo(() => zonesWith(form.zone), [form.zone])
  const days = form.preset === 'custom' ? form.days : daysOf(form.preset, form.zone, now)
  const changeDay = (name: 'from' | 'to', value: string): void => {
    if (!isDay(value)) return
    const next = { ...days, [name]: value }
    // The other day follows, so that the range is never empty.
    if (next.from > next.to) next[name === 'from' ? 'to' : 'from'] = value
    onChange({ days: next })
  }
  return (
    <form class="fields report-form" aria-label="Report" onSubmit={(event) => event.preventDefault()}>
      <div class="columns">
        <label>Time
          <select data-testid="report-range" value={form.preset} onChange={(event) => onChange({ preset: event.currentTarget.value as Preset })}>
            {PRESETS.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        {form.preset === 'custom' && (
          <>
            <label>From
              <input type="date" data-testid="report-from" value={days.from} required onChange={(event) => changeDay('from', event.currentTarget.value)} />
            </label>
            <label>To, inclusive
              <input type="date" data-testid="report-to" value={days.to} required onChange={(event) => changeDay('to', event.currentTarget.value)} />
            </label>
          </>
        )}
        <label>Divided by
          <select data-testid="report-by" value={form.by} onChange={(event) => onChange({ by: event.currentTarget.value as By })}>
            {BY.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        <label>Time zone
          <select data-testid="report-zone" value={form.zone} onChange={(event) => onChange({ zone: event.currentTarget.value })}>
            {zones.map((zone) => <option key={zone} value={zone}>{zone.replaceAll('_', ' ')}</option>)}
          </select>
        </label>
        <label>Replies count at
          <select data-testid="report-basis" value={form.basis} onChange={(event) => onChange({ basis: event.currentTarget.value as Basis | '' })}>
            {BASIS.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        <label class="check">
          <input type="checkbox" data-testid="report-hours" checked={form.inHours} onChange={(event) => onChange({ inHours: event.currentTarget.checked })} />
          In opening hours
        </label>
      </div>
    </form>
  )
}
