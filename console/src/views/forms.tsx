/** Parts of the settings' forms: values that are kept as a draft, saving, and texts in several languages. */

import { useEffect, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { parseJson } from '../storage'
import type { Texts } from '../types'

export interface Form<T> {
  values: T
  /** True if the values differ from the stored ones. */
  changed: boolean
  change(fields: Partial<T>): void
  reset(): void
}

/** The values of a form: those that are stored on the server until the user changes one; then a draft in the tab. */
export function useForm<T extends object>(desk: Desk, name: string, stored: T): Form<T> {
  const [draft, setDraft] = useState<T | undefined>(() => parseJson<T>(desk.drafts.get(name, 'form') || null))
  // A draft of an earlier version of the page may lack a field.
  const values = draft ? { ...stored, ...draft } : stored
  return {
    values,
    changed: draft !== undefined,
    change(fields) {
      const next = { ...values, ...fields }
      setDraft(next)
      desk.drafts.set(name, JSON.stringify(next), 'form')
    },
    reset() {
      setDraft(undefined)
      desk.drafts.set(name, '', 'form')
    },
  }
}

export interface Saving {
  busy: boolean
  /** The reason why the last attempt was refused; empty without one. */
  error: string
  /** Run a request; show its refusal. Returns true if it succeeded. */
  run(request: () => Promise<unknown>): Promise<boolean>
  /** Show a reason why nothing is sent. */
  refuse(reason: string): void
}

export function useSaving(desk: Desk): Saving {
  const [busy, setBusy] = useState(false)
  const [error, setError] = useState('')
  return {
    busy,
    error,
    refuse: setError,
    async run(request) {
      setBusy(true)
      setError('')
      try {
        await request()
        return true
      } catch (caught) {
        setError(desk.describe(caught))
        return false
      } finally {
        setBusy(false)
      }
    },
  }
}

/** Data of the server that a section shows; undefined until it is loaded. Loaded again when `revision` changes. */
export function useLoaded<T>(desk: Desk, load: () => Promise<T>, revision = 0): { data: T | undefined; error: string; reload: () => Promise<void> } {
  const [data, setData] = useState<T>()
  const [error, setError] = useState('')
  const reload = async (): Promise<void> => {
    try {
      setData(await load())
      setError('')
    } catch (caught) {
      setError(desk.describe(caught))
    }
  }
  useEffect(() => void reload(), [desk, revision])
  return { data, error, reload }
}

/** Focus the choice of a section where another form is shown now, unless the user is in another section by now. */
export function focusChoice(choice: HTMLElement | null): void {
  const { activeElement, body } = document
  // The form that had the focus is removed.
  if (activeElement === body || choice?.closest('section')?.contains(activeElement)) choice?.focus()
}

interface FormButtonsProps {
  saving: Saving
  testId: string
  /** True if nothing is stored yet. */
  isNew: boolean
  changed: boolean
  onReset: () => void
  /** Deletes what the form shows; undefined if that is not possible. */
  onDelete?: (() => void) | undefined
}

/** The end of a form: the refusal, *Save*, *Undo changes* and *Delete*. */
export function FormButtons({ saving, testId, isNew, changed, onReset, onDelete }: FormButtonsProps) {
  const save = useRef<HTMLButtonElement>(null)
  // Buttons that are disabled or removed lose the focus.
  const idle = saving.busy || !(changed || isNew)
  return (
    <>
      {saving.error !== '' && <p class="error" role="alert" data-testid={`${testId}-error`}>{saving.error}</p>}
      <div class="row choices">
        <button
          ref={save} type="submit" class="primary" data-testid={`${testId}-save`} aria-disabled={idle}
          onClick={(event) => { if (idle) event.preventDefault() }}
        >
          Save
        </button>
        {changed && <button type="button" data-testid={`${testId}-reset`} onClick={() => { save.current?.focus(); onReset() }}>Undo changes</button>}
        {onDelete && <button type="button" class="plain" data-testid={`${testId}-delete`} aria-disabled={saving.busy} onClick={() => { if (!saving.busy) onDelete() }}>Delete</button>}
      </div>
    </>
  )
}

/** Fields for a text in each language. */
export function TextsField({ texts, hint, onChange }: { texts: Texts; hint: string; onChange: (texts: Texts) => void }) {
  const [language, setLanguage] = useState('')
  const languages = Object.keys(texts)
  const add = (): void => {
    const name = language.trim()
    if (!/^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,2}$/.test(name) || languages.includes(name)) return
    onChange({ ...texts, [name]: '' })
    setLanguage('')
  }
  return (
    <fieldset>
      <legend>Text</legend>
      {languages.map((name) => (
        <div class="row" key={name}>
          <label class="wide">{name}
            <textarea
              rows={3} maxLength={4000} dir="auto" data-testid={`text-${name}`} value={texts[name]} required
              onInput={(event) => onChange({ ...texts, [name]: event.currentTarget.value })}
            />
          </label>
          {languages.length > 1 && (
            <button type="button" class="plain" onClick={() => onChange(Object.fromEntries(Object.entries(texts).filter(([key]) => key !== name)))}>Remove {name}</button>
          )}
        </div>
      ))}
      <div class="row">
        <label>Another language
          <input value={language} placeholder="de" size={6} autocomplete="off" spellcheck={false} onInput={(event) => setLanguage(event.currentTarget.value)} />
        </label>
        <button type="button" onClick={add}>Add language</button>
      </div>
      <p class="quiet">{hint}</p>
    </fieldset>
  )
}
