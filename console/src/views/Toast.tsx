/** The toast, with a link to its conversation. */

import type { Notices } from '../notices'
import { sessionHref } from '../route'

/** `open` is the id of the session that is open. */
export function Toast({ notices, open }: { notices: Notices; open: string | undefined }) {
  const { toast } = notices
  if (!toast) return null
  const dismiss = (): void => notices.dismiss()
  return (
    <div class={`toast toast-${toast.kind}`} role="alert" data-testid="toast" dir="auto">
      <span>{toast.text}</span>
      {toast.session !== undefined && toast.session !== open && <a href={sessionHref(toast.session)} onClick={dismiss}>Open it</a>}
      <button type="button" class="plain" onClick={dismiss} aria-label="Dismiss">×</button>
    </div>
  )
}
