/**
 * Keyboard shortcuts outside of fields.
 *
 * When a field that the user typed in disappears (its conversation was closed, another one was opened), the following
 * keys were meant for it: they are ignored until the user clicks, moves the focus or presses Escape.
 */

export interface KeyActions {
  /** Open the next (1) or previous (-1) session. */
  step(by: 1 | -1): void
  search(): void
  searchMessages(): void
  reply(): void
  note(): void
  /** Leave the field, or go back to the list. */
  leave(): void
  help(): void
}

const FIELDS = 'input, textarea, select, [contenteditable]'
const LIST = '[data-testid="queue"]'
/** Milliseconds after the last input in which `j` and `k` count as text, unless the list has the focus. */
const TYPING_PAUSE = 1500

/** The focused element; null without one, and inside a closed dialog, which the focus leaves a frame later. */
export function focusedElement(): HTMLElement | null {
  const element = document.activeElement
  if (!(element instanceof HTMLElement) || element === document.body) return null
  return element.closest('dialog:not([open])') ? null : element
}

/** Detects that the field with the focus was removed. */
class FocusTracker {
  private field: HTMLElement | undefined
  private fieldRemoved = false
  private typedAt = -Infinity

  constructor(signal: AbortSignal) {
    const on = (name: string, act: (event: Event) => void): void =>
      document.addEventListener(name, act, { capture: true, signal })
    on('focusin', ({ target }) => {
      this.reset()
      this.field = target instanceof HTMLElement && target.matches(FIELDS) ? target : undefined
    })
    // During this event a field that is being removed is still in the document.
    on('focusout', () => queueMicrotask(() => this.update()))
    on('pointerdown', () => this.reset())
    on('input', () => (this.typedAt = performance.now()))
  }

  /** True if the field with the focus was removed, and the user has not moved the focus since. */
  get isLost(): boolean {
    this.update()
    return this.fieldRemoved
  }

  /** True within `TYPING_PAUSE` after the last input. */
  get typedRecently(): boolean {
    return performance.now() - this.typedAt < TYPING_PAUSE
  }

  /** The user clicked, moved the focus or pressed Escape. */
  reset(): void {
    this.fieldRemoved = false
    this.typedAt = -Infinity
    if (document.activeElement !== this.field) this.field = undefined
  }

  private update(): void {
    const { field } = this
    if (!field || (document.activeElement === field && field.isConnected)) return
    const visible = field.isConnected && field.getClientRects().length > 0
    if (!visible || field.matches(':disabled')) this.fieldRemoved = true
    this.field = undefined
  }
}

/** Call `keyActions` on shortcuts; return a function that removes the listeners. */
export function listenForKeys(keyActions: KeyActions): () => void {
  const controller = new AbortController()
  const focus = new FocusTracker(controller.signal)
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return
    const target = focusedElement()
    if (target?.closest('dialog')) return
    if (focus.isLost) {
      if (event.key === 'Escape') focus.reset()
      return
    }
    if (event.key === 'Escape') {
      focus.reset()
      return keyActions.leave()
    }
    if (target?.closest(FIELDS)) return
    const canStep = !focus.typedRecently || target?.closest(LIST)
    const actions: Record<string, () => void> = {
      ...(canStep && { j: () => keyActions.step(1), k: () => keyActions.step(-1) }),
      '/': keyActions.search,
      s: keyActions.searchMessages,
      n: keyActions.note,
      '?': keyActions.help,
      // A focused button or link handles Enter itself.
      ...(target?.closest('button, a:not([aria-current="true"])') ? {} : { Enter: keyActions.reply }),
    }
    const action = actions[event.key]
    if (!action) return
    event.preventDefault()
    action()
  }
  document.addEventListener('keydown', onKeyDown, { signal: controller.signal })
  return () => controller.abort()
}
