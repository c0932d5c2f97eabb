/** Automatic assignment, the closing of idle conversations, and the goals for replies. For admins. */

import type { Desk } from '../desk'
import type { Settings } from '../types'
import { FormButtons, useForm, useLoaded, useSaving } from './forms'

/** The fields of the form; numbers as text. */
interface Values {
  assignment: Settings['assignment']
  hours: string
  maxSessions: string
  returningWithin: string
  offlineAfter: string
  idleWarnAfter: string
  idleCloseAfter: string
  firstReplyGoal: string
  replyGoal: string
  goalsInHours: boolean
}

const HOUR = 3600
const MINUTE = 60
const ASSIGNMENTS: [Settings['assignment'], string][] = [
  ['off', 'Off: staff take conversations themselves'],
  ['round_robin', 'In turn: to the person whose last one is longest ago'],
  ['least_busy', 'Least busy: to the person with the fewest open ones'],
]

export function AssignmentSettings({ desk, revision, onChanged }: { desk: Desk; revision: number; onChanged: () => void }) {
  const { data, error, reload } = useLoaded(desk, async () => {
    const [{ settings }, { hours }] = await Promise.all([desk.api.settings(), desk.api.hours()])
    return { settings, hours }
  }, revision)
  const onSaved = async (): Promise<void> => {
    await reload()
    onChanged()
  }
  return (
    <section aria-labelledby="assignment" data-testid="assignment-settings" data-loaded={data !== undefined}>
      <h2 id="assignment">Assignment</h2>
      {error !== '' && <p class="error" role="alert">{error}</p>}
      {data && <AssignmentForm desk={desk} settings={data.settings} hours={data.hours.map(({ name }) => name)} onSaved={onSaved} />}
    </section>
  )
}

interface Props {
  desk: Desk
  settings: Settings
  /** The names of all opening hours. */
  hours: string[]
  onSaved: () => Promise<void>
}

function AssignmentForm({ desk, settings, hours, onSaved }: Props) {
  const form = useForm(desk, 'assignment', valuesOf(settings))
  const saving = useSaving(desk)
  const { values } = form
  const save = async (): Promise<void> => {
    const next = settingsOf(values)
    // Only what this form changes: somebody else may have changed the rest meanwhile.
    const changes = Object.fromEntries(Object.entries(next).filter(([name, value]) => value !== settings[name as keyof Settings]))
    if (Object.values(next).some((value) => typeof value === 'number' && Number.isNaN(value))) return saving.refuse('A field is not a number.')
    if (!(await saving.run(() => desk.api.changeSettings(changes)))) return
    await Promise.all([onSaved(), desk.goals.load()])
    form.reset()
  }
  const number = (field: Exclude<keyof Values, 'goalsInHours'>, label: string, hint: string) => (
    <label>{label}
      <input inputMode="decimal" data-testid={`setting-${field}`} value={values[field]} placeholder={hint} onInput={(event) => form.change({ [field]: event.currentTarget.value })} />
    </label>
  )
  return (
    <form class="fields" onSubmit={(event) => { event.preventDefault(); void save() }}>
      <label>Automatic assignment
        <select data-testid="setting-assignment" value={values.assignment} onChange={(event) => form.change({ assignment: event.currentTarget.value as Settings['assignment'] })}>
          {ASSIGNMENTS.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
        </select>
      </label>
      <label>Opening hours of the desk
        <select data-testid="setting-hours" value={values.hours} onChange={(event) => form.change({ hours: event.currentTarget.value })}>
          <option value="">Always open</option>
          {hours.map((name) => <option key={name} value={name}>{name}</option>)}
        </select>
      </label>
      <div class="columns">
        {number('maxSessions', 'Open conversations per person, at most', 'no limit')}
        {number('returningWithin', 'Players who return within (hours) go to the same person', 'no preference')}
        {number('offlineAfter', 'Waiting conversations of staff who are offline return after (minutes)', '2')}
        {number('idleWarnAfter', 'Warn an idle player after (minutes)', 'no warning')}
        {number('idleCloseAfter', 'Close an idle conversation after the warning, after (minutes)', 'never')}
        {number('firstReplyGoal', 'Goal for the first reply (minutes)', 'no goal')}
        {number('replyGoal', 'Goal for each reply (minutes)', 'no goal')}
      </div>
      <label class="check"><input type="checkbox" data-testid="setting-goalsInHours" checked={values.goalsInHours} onChange={(event) => form.change({ goalsInHours: event.currentTarget.checked })} /> Goals count opening hours only</label>
      <FormButtons saving={saving} testId="assignment" isNew={false} changed={form.changed} onReset={form.reset} />
    </form>
  )
}

function valuesOf(settings: Settings): Values {
  const text = (value: number | null, unit: number): string => (value === null ? '' : String(Math.round((value / unit) * 1000) / 1000))
  return {
    assignment: settings.assignment,
    hours: settings.hours ?? '',
    maxSessions: text(settings.max_sessions, 1),
    returningWithin: text(settings.returning_within, HOUR),
    offlineAfter: text(settings.offline_after, MINUTE),
    idleWarnAfter: text(settings.idle_warn_after, MINUTE),
    idleCloseAfter: text(settings.idle_close_after, MINUTE),
    firstReplyGoal: text(settings.first_reply_goal, MINUTE),
    replyGoal: text(settings.reply_goal, MINUTE),
    goalsInHours: settings.goals_in_hours,
  }
}

function settingsOf(values: Values): Partial<Settings> {
  const seconds = (text: string, unit: number): number | null => (text.trim() ? Math.round(Number(text) * unit) : null)
  return {
    assignment: values.assignment,
    hours: values.hours || null,
    max_sessions: seconds(values.maxSessions, 1),
    returning_within: seconds(values.returningWithin, HOUR),
    offline_after: seconds(values.offlineAfter, MINUTE) ?? 2 * MINUTE,
    idle_warn_after: seconds(values.idleWarnAfter, MINUTE),
    idle_close_after: seconds(values.idleCloseAfter, MINUTE),
    first_reply_goal: seconds(values.firstReplyGoal, MINUTE),
    reply_goal: seconds(values.replyGoal, MINUTE),
    goals_in_hours: values.goalsInHours,
  }
}
