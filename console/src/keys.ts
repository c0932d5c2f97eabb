/** The keyboard: what a key means depends on where one types. */

export interface Moves {
  /** To the session below (1) or above (-1). */
  step(by: 1 | -1): void
  search(): void
  reply(): void
  /** Out of a field, or back to the list. */
  leave(): void
  help(): void
}

const FIELDS = 'input, textarea, select, [contenteditable]'

/**
 * What has the focus; null if nothing has.
 *
 * A dialog that was closed a moment ago counts as nothing: the focus leaves it with the next frame only.
 */
export function focused(): HTMLElement | null {
  const element = document.activeElement
  if (!(element instanceof HTMLElement) || element === document.body) return null
  return element.closest('dialog:not([open])') ? null : element
}

export function listen(moves: Moves): () => void {
  const pressed = (event: KeyboardEvent): void => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
    const target = focused()
    if (target?.closest('dialog')) return
    if (event.key === 'Escape') return moves.leave()
    if (target?.closest(FIELDS)) return
    const actions: Record<string, () => void> = {
      j: () => moves.step(1),
      k: () => moves.step(-1),
      '/': moves.search,
      '?': moves.help,
      // A button or a link that has the focus takes Enter itself.
      ...(target?.closest('button, a:not([aria-current="true"])') ? {} : { Enter: moves.reply }),
    }
    const action = actions[event.key]
    if (!action) return
    event.preventDefault()
    action()
  }
  document.addEventListener('keydown', pressed)
  return () => document.removeEventListener('keydown', pressed)
}
