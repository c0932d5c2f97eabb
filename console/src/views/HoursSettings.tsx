/** Opening hours, with a preview of the next 14 days. For admins. */

import { useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { formatRanges, formOf, type HoursForm, hoursOf, newForm, previewDays, todayIn, WEEKDAYS, type WeekVersion } from '../hours'
import type { Hours } from '../types'
import { focusChoice, FormButtons, useForm, useLoaded, useSaving } from './forms'

const PREVIEW_DAYS = 14
/** The choice for hours that are not stored yet. */
const NEW = '(new)'
const TIME_ZONES = Intl.supportedValuesOf('timeZone')
const PREVIEW_DAY = new Intl.DateTimeFormat(undefined, { weekday: 'short', day: 'numeric', month: 'short', timeZone: 'UTC' })

export function HoursSettings({ desk, onChanged }: { desk: Desk; onChanged: () => void }) {
  const { data, error, reload } = useLoaded(desk, async () => (await desk.api.hours()).hours)
  const [chosen, setChosen] = useState<string>()
  const choice = useRef<HTMLSelectElement>(null)
  const name = chosen ?? data?.[0]?.name ?? NEW
  const stored = data?.find((hours) => hours.name === name)
  const onSaved = async (saved: string | undefined): Promise<void> => {
    await Promise.all([reload(), desk.goals.load()])
    setChosen(saved)
    if (saved !== stored?.name) focusChoice(choice.current)
    onChanged()
  }
  return (
    <section aria-labelledby="hours" data-testid="hours-settings" data-loaded={data !== undefined}>
      <h2 id="hours">Opening hours</h2>
      {error !== '' && <p class="error" role="alert">{error}</p>}
      {data && (
        <>
          <label class="fields">Hours
            <select ref={choice} data-testid="hours-choice" value={name} onChange={(event) => setChosen(event.currentTarget.value)}>
              {data.map((hours) => <option key={hours.name} value={hours.name}>{hours.name}</option>)}
              <option value={NEW}>New hours …</option>
            </select>
          </label>
          <HoursForm key={`${name} ${stored ? 'stored' : ''}`} desk={desk} draftName={`hours ${name}`} stored={stored} onSaved={onSaved} />
        </>
      )}
    </section>
  )
}

interface Props {
  desk: Desk
  draftName: string
  /** Undefined for new hours. */
  stored: Hours | undefined
  /** `name` is undefined if the hours were deleted. */
  onSaved: (name: string | undefined) => Promise<void>
}

function HoursForm({ desk, draftName, stored, onSaved }: Props) {
  const zone = stored?.timezone ?? Intl.DateTimeFormat().resolvedOptions().timeZone
  const storedForm = stored ? formOf(stored, todayIn(zone, desk.api.now())) : undefined
  const form = useForm<HoursForm>(desk, draftName, storedForm ?? newForm(zone, todayIn(zone, desk.api.now())))
  const saving = useSaving(desk)
  const { values } = form
  const today = todayIn(values.timezone, desk.api.now())
  const save = async (): Promise<void> => {
    const hours = hoursOf(values, storedForm, today)
    if (typeof hours === 'string') return saving.refuse(hours)
    if (!(await saving.run(() => desk.api.saveHours(hours, stored === undefined)))) return
    await onSaved(hours.name)
    form.reset()
  }
  const remove = async (): Promise<void> => {
    if (!stored || !(await saving.run(() => desk.api.deleteHours(stored.name)))) return
    form.reset()
    await onSaved(undefined)
  }
  const changeVersion = (index: number, fields: Partial<WeekVersion>): void =>
    form.change({ versions: values.versions.map((version, n) => (n === index ? { ...version, ...fields } : version)) })
  const changeSpecial = (index: number, fields: Partial<HoursForm['specialDays'][number]>): void =>
    form.change({ specialDays: values.specialDays.map((day, n) => (n === index ? { ...day, ...fields } : day)) })
  const without = <T,>(list: T[], index: number): T[] => list.filter((_, n) => n !== index)
  return (
    <form class="fields" onSubmit={(event) => { event.preventDefault(); void save() }}>
      {!stored && (
        <label>Name
          <input data-testid="hours-name" value={values.name} pattern="[a-z0-9][a-z0-9_\-]{0,39}" required placeholder="desk" title="Lower case letters, digits, - and _" onInput={(event) => form.change({ name: event.currentTarget.value })} />
        </label>
      )}
      <label>Time zone
        <input data-testid="hours-timezone" list="time-zones" value={values.timezone} required autocomplete="off" spellcheck={false} onInput={(event) => form.change({ timezone: event.currentTarget.value })} />
      </label>
      <datalist id="time-zones">{TIME_ZONES.map((name) => <option key={name} value={name} />)}</datalist>
      <p class="quiet">Times as 09:00–12:00, 13:00–18:00. A closing time before the opening is on the next day; 24h is the whole day; empty is closed.</p>
      {values.versions.map((version, n) => (
        <fieldset key={n}>
          <legend>{version.validFrom <= today ? 'Week' : `Week from ${version.validFrom}`}</legend>
          {version.validFrom > today && (
            <label>From
              <input type="date" value={version.validFrom} min={today} required onInput={(event) => changeVersion(n, { validFrom: event.currentTarget.value })} />
            </label>
          )}
          <div class="columns">
            {WEEKDAYS.map((weekday, day) => (
              <label key={weekday}>{weekday}
                <input
                  data-testid={`hours-${n}-${day + 1}`} value={version.days[day]} placeholder="closed" autocomplete="off"
                  onInput={(event) => changeVersion(n, { days: version.days.map((text, at) => (at === day ? event.currentTarget.value : text)) })}
                />
              </label>
            ))}
          </div>
          {version.validFrom > today && <button type="button" class="plain" onClick={() => form.change({ versions: without(values.versions, n) })}>Remove this week</button>}
        </fieldset>
      ))}
      {values.specialDays.map((special, n) => (
        <fieldset key={n}>
          <legend>Special day {special.day}</legend>
          <div class="columns">
            <label>Day<input type="date" data-testid={`special-day-${n}`} value={special.day} min={today} required onInput={(event) => changeSpecial(n, { day: event.currentTarget.value })} /></label>
            <label>Reason<input data-testid={`special-label-${n}`} value={special.label} maxLength={80} onInput={(event) => changeSpecial(n, { label: event.currentTarget.value })} /></label>
            <label>Times<input data-testid={`special-ranges-${n}`} value={special.ranges} placeholder="closed" onInput={(event) => changeSpecial(n, { ranges: event.currentTarget.value })} /></label>
          </div>
          <button type="button" class="plain" onClick={() => form.change({ specialDays: without(values.specialDays, n) })}>Remove this day</button>
        </fieldset>
      ))}
      <div class="row choices">
        <button type="button" data-testid="add-special-day" onClick={() => form.change({ specialDays: [...values.specialDays, { day: today, label: '', ranges: '' }] })}>Add a special day</button>
        <button
          type="button" data-testid="add-week"
          onClick={() => form.change({ versions: [...values.versions, { validFrom: dayAfter(today), days: values.versions.at(-1)?.days ?? WEEKDAYS.map(() => '') }] })}
        >
          Add a week from a later day
        </button>
      </div>
      <Preview form={values} today={today} />
      <FormButtons saving={saving} testId="hours" isNew={!stored} changed={form.changed} onReset={form.reset} onDelete={stored && (() => void remove())} />
    </form>
  )
}

function Preview({ form, today }: { form: HoursForm; today: string }) {
  return (
    <div class="table" tabIndex={0} role="region" aria-label="The next 14 days">
      <table data-testid="hours-preview">
        <thead><tr><th>The next {PREVIEW_DAYS} days</th><th>Open</th><th>Reason</th></tr></thead>
        <tbody>
          {previewDays(form, today, PREVIEW_DAYS).map(({ day, ranges, special }) => (
            <tr key={day} data-testid="preview-day" data-day={day}>
              <th scope="row">{PREVIEW_DAY.format(new Date(day))}</th>
              <td class={ranges === null ? 'error' : ''}>{ranges === null ? 'not a time' : formatRanges(ranges) || 'closed'}</td>
              <td>{special}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function dayAfter(day: string): string {
  return new Date(Date.parse(day) + 86_400_000).toISOString().slice(0, 10)
}
