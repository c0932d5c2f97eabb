/** Auto-replies, and the one that a new conversation would get at this moment. For admins. */

import { useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { AutoReply, AutoReplyNow, Texts } from '../types'
import { focusChoice, FormButtons, TextsField, useForm, useLoaded, useSaving } from './forms'

const NEW = '(new)'
const MINUTE = 60
const HINT = 'Placeholders: {{player_name|there}}, {{staff_name}}, {{open_until}}, {{next_open}}. A text whose value is missing is not sent: write a fallback after a bar.'
const OCCASIONS: [AutoReply['occasion'], string][] = [
  ['opened', 'A new conversation'],
  ['reopened', 'A conversation that was reopened'],
  ['closed_hours', 'A message outside the opening hours'],
  ['nobody_online', 'A message while nobody is online'],
  ['waiting', 'The player has waited for a while'],
  ['idle_warning', 'Before an idle conversation is closed'],
  ['idle_close', 'When an idle conversation is closed'],
]
const FREQUENCIES: [AutoReply['once'], string][] = [['cycle', 'once in a conversation'], ['day', 'once a day'], ['question', 'once for each question']]

export function AutoReplySettings({ desk, revision }: { desk: Desk; revision: number }) {
  const { data, error, reload } = useLoaded(desk, async () => {
    const [{ auto_replies: rules, now }, { hours }] = await Promise.all([desk.api.autoReplies(), desk.api.hours()])
    return { rules, now, hours: hours.map(({ name }) => name) }
  }, revision)
  const [chosen, setChosen] = useState(NEW)
  const choice = useRef<HTMLSelectElement>(null)
  const stored = data?.rules.find(({ id }) => id === chosen)
  const onSaved = async (id: string | undefined): Promise<void> => {
    await reload()
    setChosen(id ?? NEW)
    if (id !== stored?.id) focusChoice(choice.current)
  }
  return (
    <section aria-labelledby="auto-replies" data-testid="auto-reply-settings" data-loaded={data !== undefined}>
      <h2 id="auto-replies">Auto-replies</h2>
      {error !== '' && <p class="error" role="alert">{error}</p>}
      {data && (
        <>
          <Now rules={data.rules} now={data.now} />
          <label class="fields">Auto-reply
            <select ref={choice} data-testid="auto-reply-choice" value={stored?.id ?? NEW} onChange={(event) => setChosen(event.currentTarget.value)}>
              <option value={NEW}>New auto-reply …</option>
              {data.rules.map((rule) => <option key={rule.id} value={rule.id}>{rule.name}{rule.active ? '' : ' (not active)'}</option>)}
            </select>
          </label>
          <AutoReplyForm key={stored?.id ?? NEW} desk={desk} stored={stored} hours={data.hours} onSaved={onSaved} />
        </>
      )}
    </section>
  )
}

/** What would be sent now. */
function Now({ rules, now }: { rules: AutoReply[]; now: AutoReplyNow | null }) {
  if (!now) return <p class="quiet" data-testid="auto-reply-now">A new conversation would get no auto-reply now.</p>
  const name = rules.find(({ id }) => id === now.id)?.name ?? ''
  return (
    <div class="now" data-testid="auto-reply-now">
      <p class="quiet">A new conversation would get this auto-reply now, from “<b dir="auto">{name}</b>”:</p>
      <p class="text" dir="auto">{now.text}</p>
      {now.missing.length > 0 && <p class="quiet">Values of the player are filled in.</p>}
    </div>
  )
}

interface Values {
  name: string
  occasion: AutoReply['occasion']
  wait: string
  once: AutoReply['once']
  hours: string
  texts: Texts
  priority: string
  push: boolean
  active: boolean
  validFrom: string
  validTo: string
}

interface Props {
  desk: Desk
  /** Undefined for a new rule. */
  stored: AutoReply | undefined
  /** The names of all opening hours. */
  hours: string[]
  /** `id` is undefined if the rule was deleted. */
  onSaved: (id: string | undefined) => Promise<void>
}

function AutoReplyForm({ desk, stored, hours, onSaved }: Props) {
  const form = useForm<Values>(desk, `auto-reply ${stored?.id ?? NEW}`, valuesOf(stored))
  const saving = useSaving(desk)
  const { values } = form
  const save = async (): Promise<void> => {
    let id: string | undefined
    const saved = await saving.run(async () => (id = (await desk.api.saveAutoReply(ruleOf(values), stored?.id)).auto_reply.id))
    if (!saved) return
    form.reset()
    await onSaved(id)
  }
  const remove = async (): Promise<void> => {
    if (!stored || !(await saving.run(() => desk.api.deleteAutoReply(stored.id)))) return
    form.reset()
    await onSaved(undefined)
  }
  return (
    <form class="fields" onSubmit={(event) => { event.preventDefault(); void save() }}>
      <div class="columns">
        <label>Name<input data-testid="auto-reply-name" value={values.name} maxLength={120} required onInput={(event) => form.change({ name: event.currentTarget.value })} /></label>
        <label>Sent on
          <select data-testid="auto-reply-occasion" value={values.occasion} onChange={(event) => form.change({ occasion: event.currentTarget.value as AutoReply['occasion'] })}>
            {OCCASIONS.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        {values.occasion === 'waiting' && (
          <label>After (minutes of open hours)
            <input inputMode="decimal" data-testid="auto-reply-wait" required pattern="\d+([.]\d+)?" title="A number of minutes" value={values.wait} onInput={(event) => form.change({ wait: event.currentTarget.value })} />
          </label>
        )}
        <label>How often
          <select data-testid="auto-reply-once" value={values.once} onChange={(event) => form.change({ once: event.currentTarget.value as AutoReply['once'] })}>
            {FREQUENCIES.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
        <label>{values.occasion === 'closed_hours' ? 'Outside the hours' : 'Within the hours'}
          <select data-testid="auto-reply-hours" value={values.hours} onChange={(event) => form.change({ hours: event.currentTarget.value })}>
            <option value="">{values.occasion === 'closed_hours' || values.occasion === 'waiting' ? 'Those of the desk' : 'At any time'}</option>
            {hours.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        <label>Priority<input inputMode="numeric" data-testid="auto-reply-priority" pattern="-?\d{1,4}" title="A whole number; of several rules the one with the highest answers" value={values.priority} onInput={(event) => form.change({ priority: event.currentTarget.value })} /></label>
        <label>From<input type="datetime-local" value={values.validFrom} onInput={(event) => form.change({ validFrom: event.currentTarget.value })} /></label>
        <label>Until<input type="datetime-local" value={values.validTo} onInput={(event) => form.change({ validTo: event.currentTarget.value })} /></label>
      </div>
      <TextsField texts={values.texts} hint={HINT} onChange={(texts) => form.change({ texts })} />
      <label class="check"><input type="checkbox" checked={values.push} onChange={(event) => form.change({ push: event.currentTarget.checked })} /> Also send a push</label>
      <label class="check"><input type="checkbox" data-testid="auto-reply-active" checked={values.active} onChange={(event) => form.change({ active: event.currentTarget.checked })} /> Active</label>
      <FormButtons saving={saving} testId="auto-reply" isNew={!stored} changed={form.changed} onReset={form.reset} onDelete={stored && (() => void remove())} />
    </form>
  )
}

function valuesOf(rule: AutoReply | undefined): Values {
  return {
    name: rule?.name ?? '',
    occasion: rule?.occasion ?? 'opened',
    wait: rule?.wait == null ? '' : String(Math.round((rule.wait / MINUTE) * 1000) / 1000),
    once: rule?.once ?? 'cycle',
    hours: rule?.hours ?? '',
    texts: rule?.texts ?? { en: '' },
    priority: String(rule?.priority ?? 0),
    push: rule?.push ?? false,
    active: rule?.active ?? true,
    validFrom: localTime(rule?.valid_from),
    validTo: localTime(rule?.valid_to),
  }
}

function ruleOf(values: Values): Partial<AutoReply> {
  const time = (text: string): string | null => (text ? new Date(text).toISOString() : null)
  return {
    name: values.name,
    occasion: values.occasion,
    wait: values.occasion === 'waiting' ? Math.round(Number(values.wait) * MINUTE) : null,
    once: values.once,
    hours: values.hours || null,
    texts: values.texts,
    priority: Number(values.priority) || 0,
    push: values.push,
    active: values.active,
    valid_from: time(values.validFrom),
    valid_to: time(values.validTo),
  }
}

/** A time as a field of type datetime-local has it: in the browser's time zone. */
function localTime(at: string | null | undefined): string {
  if (!at) return ''
  const date = new Date(at)
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}
