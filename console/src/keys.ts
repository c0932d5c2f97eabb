/**
 * The keyboard: what a key means depends on where one types.
 *
 * When a field that one typed in goes away (its conversation was closed, another one was opened), the keys that follow
 * are still meant for it: they do nothing until one points somewhere, moves the focus, or presses Escape.
 */

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
const LIST = '[data-testid="queue"]'
/** Milliseconds after the last letter in which another one is taken for text, unless the list has the focus. */
const LATELY = 1500

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

/** Whether the keys that come now were meant for a field that is gone. */
class Orphaned {
  private field: HTMLElement | undefined
  private vanished = false
  private typedAt = -Infinity

  constructor(signal: AbortSignal) {
    const on = (name: string, act: (event: Event) => void): void =>
      document.addEventListener(name, act, { capture: true, signal })
    on('focusin', ({ target }) => {
      this.clear()
      this.field = target instanceof HTMLElement && target.matches(FIELDS) ? target : undefined
    })
    // (At this moment a field that is being removed is still in the document.)
    on('focusout', () => queueMicrotask(() => this.look()))
    on('pointerdown', () => this.clear())
    on('input', () => (this.typedAt = performance.now()))
  }

  get keys(): boolean {
    this.look()
    return this.vanished
  }

  /** Whether one has just written. */
  get lately(): boolean {
    return performance.now() - this.typedAt < LATELY
  }

  /** One has said where the keys belong. */
  clear(): void {
    this.vanished = false
    this.typedAt = -Infinity
    if (document.activeElement !== this.field) this.field = undefined
  }

  private look(): void {
    const { field } = this
    if (!field || (document.activeElement === field && field.isConnected)) return
    const visible = field.isConnected && field.getClientRects().length > 0
    if (!visible || field.matches(':disabled')) this.vanished = true
    this.field = undefined
  }
}

export function listen(moves: Moves): () => void {
  const ended = new AbortController()
  const orphaned = new Orphaned(ended.signal)
  const pressed = (event: KeyboardEvent): void => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
    const target = focused()
    if (target?.closest('dialog')) return
    if (orphaned.keys) {
      if (event.key === 'Escape') orphaned.clear()
      return
    }
    if (event.key === 'Escape') {
      orphaned.clear()
      return moves.leave()
    }
    if (target?.closest(FIELDS)) return
    const stepping = !orphaned.lately || target?.closest(LIST)
    const actions: Record<string, () => void> = {
      ...(stepping && { j: () => moves.step(1), k: () => moves.step(-1) }),
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
  document.addEventListener('keydown', pressed, { signal: ended.signal })
  return () => ended.abort()
}
