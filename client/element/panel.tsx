/** @jsxImportSource preact */
/**
 * The panel: a dialog with the conversation. It is modal on small screens, which it fills, and beside the page on others.
 * Nothing here writes HTML or inline styles as text, so a page's Content-Security-Policy needs no exception.
 */

import { render } from 'preact'
import { Context } from './context'
import { Draft } from './draft'
import type { Host, Panel } from './host'
import sheetText from './panel.css?inline'
import { App } from './views/App'
import { wordsOf } from './words'

/** Below this width the panel fills the screen; panel.css has the same figure. */
const NARROW = '(max-width: 479.98px)'

/** Create the panel in the element's shadow root, closed. */
export function mount(host: Host): Panel {
  const { root, chat, element } = host
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(sheetText)
  const dialog = document.createElement('dialog')
  const narrow = matchMedia(NARROW)
  const close = (): void => {
    element.open = false
  }
  const signIn = (): void => {
    element.dispatchEvent(new CustomEvent('gre-sign-in', { bubbles: true, composed: true }))
    chat.connect()
  }
  const draft = new Draft(chat, () => update(), element.getAttribute('url') ?? '')

  function update(): void {
    draft.belongTo(chat.status().me)
    const language = element.closest<HTMLElement>('[lang]')?.lang || 'en'
    const words = wordsOf(language, element.words)
    render(<Context.Provider value={{ chat, draft, words, language, close, signIn }}><App open={dialog.open} /></Context.Provider>, dialog)
  }

  /** Unlike `show()` of a dialog, the attribute leaves the focus where it is. */
  function open(): void {
    if (narrow.matches) dialog.showModal()
    else dialog.setAttribute('open', '')
    fit()
  }

  function show(focus: boolean): void {
    if (dialog.open) return
    open()
    update()
    if (!focus) return
    // A keyboard that covers half of a phone's screen is not asked for.
    const field = narrow.matches ? null : dialog.querySelector('textarea')
    const first = field ?? dialog.querySelector('h2')
    first?.focus()
  }

  function hide(): void {
    if (!dialog.open) return
    const focused = dialog.contains(root.activeElement)
    dialog.close()
    if (focused) host.button.focus()
    update()
  }

  /** Keep a full screen above the keyboard of a phone. */
  function fit(): void {
    const { visualViewport } = window
    const full = narrow.matches && dialog.open && visualViewport
    dialog.style.setProperty('--visible-height', full ? `${visualViewport.height}px` : null)
    dialog.style.setProperty('--visible-top', full ? `${visualViewport.offsetTop}px` : null)
  }

  function turn(): void {
    if (!dialog.open) return
    const focused = root.activeElement as HTMLElement | null
    dialog.close()
    open()
    focused?.focus()
  }

  dialog.part.add('panel')
  dialog.id = 'panel'
  dialog.setAttribute('aria-labelledby', 'title')
  host.button.setAttribute('aria-controls', dialog.id)
  dialog.addEventListener('cancel', (event) => {
    if (event.target !== dialog) return // the viewer's
    event.preventDefault()
    close()
  })
  dialog.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || event.isComposing || event.defaultPrevented || narrow.matches) return
    if (dialog.querySelector('dialog[open]')) return // the viewer closes itself
    event.preventDefault()
    event.stopPropagation()
    close()
  })
  dialog.addEventListener('close', () => {
    if (dialog.isConnected && !dialog.open && element.open) close() // a browser may close it without asking
  })
  root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet]
  root.append(dialog)
  const unsubscribe = chat.subscribe(update)
  narrow.addEventListener('change', turn)
  document.addEventListener('visibilitychange', update)
  visualViewport?.addEventListener('resize', fit)
  visualViewport?.addEventListener('scroll', fit)
  update()

  return {
    show,
    hide,
    update,
    unmount() {
      unsubscribe()
      narrow.removeEventListener('change', turn)
      document.removeEventListener('visibilitychange', update)
      visualViewport?.removeEventListener('resize', fit)
      visualViewport?.removeEventListener('scroll', fit)
      hide()
      render(null, dialog)
      dialog.remove()
      root.adoptedStyleSheets = root.adoptedStyleSheets.filter((item) => item !== sheet)
    },
  }
}
