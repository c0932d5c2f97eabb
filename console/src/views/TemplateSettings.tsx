/** Templates: everybody's, which admins write, and the user's own. */

import { useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import type { Template, Texts } from '../types'
import { focusChoice, FormButtons, TextsField, useForm, useLoaded, useSaving } from './forms'

const NEW = '(new)'
const HINT = 'Placeholders: {{player_name|there}}, {{staff_name}}, {{open_until}}, {{next_open}}; {{?amount}} is a blank that is filled in when the template is used.'

export function TemplateSettings({ desk }: { desk: Desk }) {
  const { data, error, reload } = useLoaded(desk, async () => (await desk.api.templates()).templates)
  const [chosen, setChosen] = useState(NEW)
  const choice = useRef<HTMLSelectElement>(null)
  const isAdmin = desk.me?.role === 'admin'
  const stored = data?.find(({ id }) => id === chosen)
  const editable = data?.filter(({ staff_id: owner }) => isAdmin || owner !== null) ?? []
  const onSaved = async (id: string | undefined): Promise<void> => {
    await Promise.all([reload(), desk.templates.reload()])
    setChosen(id ?? NEW)
    if (id !== stored?.id) focusChoice(choice.current)
  }
  return (
    <section aria-labelledby="templates" data-testid="template-settings" data-loaded={data !== undefined}>
      <h2 id="templates">Templates</h2>
      <p class="quiet">In a reply, <kbd>/</kbd> and the shortcut insert a template.</p>
      {error !== '' && <p class="error" role="alert">{error}</p>}
      {data && (
        <>
          <label class="fields">Template
            <select ref={choice} data-testid="template-choice" value={stored?.id ?? NEW} onChange={(event) => setChosen(event.currentTarget.value)}>
              <option value={NEW}>New template …</option>
              {editable.map((item) => <option key={item.id} value={item.id}>/{item.shortcut} · {item.title}{item.staff_id === null ? '' : ' (mine)'}{item.active ? '' : ' (not active)'}</option>)}
            </select>
          </label>
          <TemplateForm key={stored?.id ?? NEW} desk={desk} isAdmin={isAdmin} stored={stored} onSaved={onSaved} />
        </>
      )}
    </section>
  )
}

interface Values {
  shortcut: string
  title: string
  texts: Texts
  mine: boolean
  active: boolean
}

interface Props {
  desk: Desk
  isAdmin: boolean
  /** Undefined for a new template. */
  stored: Template | undefined
  /** `id` is undefined if the template was deleted. */
  onSaved: (id: string | undefined) => Promise<void>
}

function TemplateForm({ desk, isAdmin, stored, onSaved }: Props) {
  const form = useForm<Values>(desk, `template ${stored?.id ?? NEW}`, {
    shortcut: stored?.shortcut ?? '', title: stored?.title ?? '', texts: stored?.texts ?? { en: '' },
    mine: stored ? stored.staff_id !== null : !isAdmin, active: stored?.active ?? true,
  })
  const saving = useSaving(desk)
  const { values } = form
  const save = async (): Promise<void> => {
    const { mine, ...fields } = values
    let id: string | undefined
    const saved = await saving.run(async () => {
      id = (await desk.api.saveTemplate({ ...fields, staff_id: mine ? (desk.me?.staffId ?? null) : null }, stored?.id)).template.id
    })
    if (!saved) return
    form.reset()
    await onSaved(id)
  }
  const remove = async (): Promise<void> => {
    if (!stored || !(await saving.run(() => desk.api.deleteTemplate(stored.id)))) return
    form.reset()
    await onSaved(undefined)
  }
  return (
    <form class="fields" onSubmit={(event) => { event.preventDefault(); void save() }}>
      <div class="columns">
        <label>Shortcut<input data-testid="template-shortcut" value={values.shortcut} pattern="[a-z0-9][a-z0-9_\-]{0,39}" required placeholder="refund" title="Lower case letters, digits, - and _" autocomplete="off" onInput={(event) => form.change({ shortcut: event.currentTarget.value })} /></label>
        <label>Title<input data-testid="template-title" value={values.title} maxLength={120} required onInput={(event) => form.change({ title: event.currentTarget.value })} /></label>
      </div>
      <TextsField texts={values.texts} hint={HINT} onChange={(texts) => form.change({ texts })} />
      {isAdmin && <label class="check"><input type="checkbox" data-testid="template-mine" checked={values.mine} onChange={(event) => form.change({ mine: event.currentTarget.checked })} /> Only for me</label>}
      <label class="check"><input type="checkbox" data-testid="template-active" checked={values.active} onChange={(event) => form.change({ active: event.currentTarget.checked })} /> Active</label>
      <FormButtons saving={saving} testId="template" isNew={!stored} changed={form.changed} onReset={form.reset} onDelete={stored && (() => void remove())} />
    </form>
  )
}
