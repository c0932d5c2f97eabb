/** A modal dialog with a form. Escape and the button *Cancel* close it; what was typed in it is kept by its owner. */

import type { ComponentChildren } from 'preact'
import { useLayoutEffect, useRef } from 'preact/hooks'

interface Props {
  title: string
  testId: string
  submitLabel: string
  busy: boolean
  /** The reason why the last attempt was refused; empty without one. */
  error: string
  onSubmit: () => void
  onClose: () => void
  children: ComponentChildren
}

export function Modal({ title, testId, submitLabel, busy, error, onSubmit, onClose, children }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  const form = useRef<HTMLFormElement>(null)
  useLayoutEffect(() => {
    const element = dialog.current
    element?.showModal()
    // The focus returns to where it was only if the dialog is closed before it is removed.
    return () => element?.close()
  }, [])
  const submit = (event: Event): void => {
    event.preventDefault()
    if (!busy) onSubmit()
  }
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby={`${testId}-title`} data-testid={testId}>
      <form
        ref={form} class="fields" onSubmit={submit} aria-busy={busy}
        onKeyDown={(event) => {
          if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.current?.requestSubmit()
        }}
      >
        <h2 id={`${testId}-title`}>{title}</h2>
        {children}
        {error !== '' && <p class="error" role="alert" data-testid={`${testId}-error`}>{error}</p>}
        <div class="row choices">
          <button type="submit" class="primary" aria-disabled={busy}>{submitLabel}</button>
          <button type="button" onClick={() => dialog.current?.close()}>Cancel</button>
        </div>
      </form>
    </dialog>
  )
}
