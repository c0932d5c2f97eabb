/**
 * The menu of templates above the reply box, with a preview; and the dialog for blanks. `/` opens it, the arrow keys
 * choose, Enter or Tab insert, Escape closes.
 */

import type { RefObject } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { fillBlanks, insertAt, type SlashQuery, slashQuery } from '../templates'
import type { Rendered, Template } from '../types'
import { Modal } from './Modal'

const MENU_ID = 'template-menu'

interface Options {
  desk: Desk
  /** The session's id. */
  id: string
  field: RefObject<HTMLTextAreaElement | null>
  /** `text` is the whole text of the reply box, with the template's in it. */
  onInsert: (text: string, templateId: string) => void
}

/** A template whose text has blanks. */
interface Incomplete {
  templateId: string
  rendered: Rendered
  at: SlashQuery
  replaced: string
}

export function useTemplateMenu({ desk, id, field, onInsert }: Options) {
  const [at, setAt] = useState<SlashQuery>()
  const [index, setIndex] = useState(0)
  const [incomplete, setIncomplete] = useState<Incomplete>()
  const matches = at ? desk.templates.matching(at.query) : []
  const chosen = matches[Math.min(index, matches.length - 1)]

  const insert = (templateId: string, text: string, place: SlashQuery, replaced: string): void => {
    const result = insertAt(desk.drafts.get(id), place, replaced, text)
    onInsert(result.text, templateId)
    const box = field.current
    if (!box) return
    // The box gets its new text with the next rendering.
    requestAnimationFrame(() => {
      box.focus()
      box.setSelectionRange(result.cursor, result.cursor)
    })
  }
  const choose = (template: Template): void => {
    if (!at) return
    const replaced = `/${at.query}`
    setAt(undefined)
    void desk.actions.attempt(async () => {
      const rendered = await desk.api.renderTemplate(template.id, id)
      if (rendered.missing.length) setIncomplete({ templateId: template.id, rendered, at, replaced })
      else insert(template.id, rendered.text, at, replaced)
    })
  }
  return {
    /** The text or the cursor changed. */
    update(text: string, cursor: number): void {
      const found = slashQuery(text, cursor)
      if (found && !at) void desk.templates.reload()
      setAt(found)
      setIndex(0)
    },
    /** Handle a key of the reply box; returns true if it was for the menu. */
    handleKey(event: KeyboardEvent): boolean {
      if (!chosen || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return false
      const last = matches.length - 1
      if (event.key === 'ArrowDown') setIndex(index >= last ? 0 : index + 1)
      else if (event.key === 'ArrowUp') setIndex(index <= 0 ? last : index - 1)
      else if (event.key === 'Escape') setAt(undefined)
      else if ((event.key === 'Enter' || event.key === 'Tab') && !event.shiftKey) choose(chosen)
      else return false
      event.preventDefault()
      return true
    },
    close: () => setAt(undefined),
    /** Attributes of the reply box while the menu is open. */
    fieldAttributes: chosen ? { 'aria-controls': MENU_ID, 'aria-activedescendant': `${MENU_ID}-${chosen.id}` } : {},
    view: (
      <>
        {chosen && (
          <div class="template-menu" data-testid="template-menu">
            <ul id={MENU_ID} role="listbox" aria-label="Templates">
              {matches.map((template) => (
                <li
                  key={template.id} id={`${MENU_ID}-${template.id}`} role="option" aria-selected={template === chosen} data-testid="template-option" data-shortcut={template.shortcut}
                  onPointerDown={(event) => { event.preventDefault(); choose(template) }}
                >
                  <b>/{template.shortcut}</b> <span dir="auto">{template.title}</span>
                </li>
              ))}
            </ul>
            <p class="text" dir="auto" data-testid="template-preview">{textOf(chosen)}</p>
          </div>
        )}
        <span class="visually-hidden" role="status">{chosen ? `${matches.length} templates; /${chosen.shortcut}: ${textOf(chosen)}` : ''}</span>
      </>
    ),
    /** The dialog for blanks. It has a form, so it must be outside of the reply box's. */
    dialog: incomplete && (
      <Blanks
        rendered={incomplete.rendered} onClose={() => setIncomplete(undefined)}
        onInsert={(text) => { setIncomplete(undefined); insert(incomplete.templateId, text, incomplete.at, incomplete.replaced) }}
      />
    ),
  }
}

function textOf({ texts }: Template): string {
  return texts['en'] ?? Object.values(texts)[0] ?? ''
}

interface BlanksProps {
  rendered: Rendered
  onInsert: (text: string) => void
  onClose: () => void
}

/** The blanks of a template, and the text with what is filled in so far. */
function Blanks({ rendered, onInsert, onClose }: BlanksProps) {
  const names = [...new Set(rendered.missing)]
  const [values, setValues] = useState<Record<string, string>>({})
  const text = fillBlanks(rendered.text, values)
  useEffect(() => document.getElementById(`blank-${names[0]}`)?.focus(), [])
  return (
    <Modal title="Fill in the blanks" testId="blanks" submitLabel="Insert" busy={false} error="" onSubmit={() => onInsert(text)} onClose={onClose}>
      {names.map((name) => (
        <label key={name}>{name.replaceAll('_', ' ')}
          <input
            id={`blank-${name}`} data-testid={`blank-${name}`} required pattern=".*\S.*" dir="auto" autocomplete="off" value={values[name] ?? ''}
            onInput={(event) => setValues({ ...values, [name]: event.currentTarget.value })}
          />
        </label>
      ))}
      <p class="text now" dir="auto" data-testid="blanks-preview">{text}</p>
    </Modal>
  )
}
