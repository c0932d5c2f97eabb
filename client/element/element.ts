/**
 * The custom element: a button with a badge, and what is loaded behind it. All of this file is in the loader, which has
 * at most 3 KB: what only an open panel needs belongs to panel.tsx.
 */

import type { Chat, ChatOptions } from '../src/api'
import type { Host, Panel } from './host'
import sheetText from './launcher.css?inline'

/** The parts that are loaded later. */
export interface Modules {
  core(): Promise<{ createChat(options: ChatOptions): Chat }>
  panel(): Promise<{ mount(host: Host): Panel }>
}

type Label = 'title' | 'open' | 'unread' | 'failed'
type GetToken = ChatOptions['getToken']

/** What the button says, in the languages of the element; `words` overrides it. */
const LABELS: Record<string, Record<Label, string>> = {
  en: { title: 'Chat', open: 'Open chat', unread: '{n} new messages', failed: 'The chat could not be loaded. Try again.' },
  de: { title: 'Chat', open: 'Chat öffnen', unread: '{n} neue Nachrichten', failed: 'Der Chat konnte nicht geladen werden. Bitte noch einmal.' },
}

/**
 * Define `<gre-chat>`. `url` is the daemon's address for elements without the attribute `url`.
 * Does nothing if the element is defined already.
 */
export function define(modules: Modules, url: string): void {
  if (customElements.get('gre-chat')) return

  class GreChat extends HTMLElement {
    static observedAttributes = ['lang', 'open', 'unread', 'words']
    private readonly root = this.attachShadow({ mode: 'open' })
    private readonly region = document.createElement('section')
    private readonly button = document.createElement('button')
    private readonly badge = document.createElement('span')
    private readonly news = document.createElement('span')
    private given: Chat | undefined
    private asked: GetToken | undefined
    private ownWords: Record<string, string> | undefined
    private chatting: Promise<Chat> | undefined
    /** `chatting`, if the element has made the chat. */
    private made: Promise<Chat> | undefined
    private panel: Promise<Panel> | undefined
    private shown: Panel | undefined
    private leave: (() => void) | undefined
    private count = 0

    constructor() {
      super()
      const sheet = new CSSStyleSheet()
      sheet.replaceSync(sheetText)
      this.root.adoptedStyleSheets = [sheet]
      const { region, button, badge, news } = this
      button.type = 'button'
      button.part.add('launcher')
      button.ariaHasPopup = 'dialog'
      button.onclick = () => this.toggleAttribute('open')
      const icon = svg('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true' })
      icon.append(svg('path', { d: 'M4 5h16v11H9l-5 4z' }))
      badge.part.add('badge')
      badge.hidden = true
      news.role = 'status'
      button.append(icon, badge)
      region.append(button, news)
      this.root.append(region)
    }

    /** Return the user's token, as `getToken` of `createChat`. Setting it again begins anew, as after signing in. */
    get getToken(): GetToken | undefined {
      return this.asked
    }

    set getToken(getToken: GetToken | undefined) {
      this.asked = getToken
      this.restart()
    }

    /** The chat of `createChat`: one of the page's own, if it was set. */
    get chat(): Chat | undefined {
      return this.given
    }

    set chat(chat: Chat | undefined) {
      this.given = chat
      this.restart()
    }

    /** Texts that replace those of the element, by name. */
    get words(): Record<string, string> {
      try {
        return this.ownWords ?? (JSON.parse(this.getAttribute('words') ?? '{}') as Record<string, string>)
      } catch {
        return {}
      }
    }

    set words(words: Record<string, string>) {
      this.ownWords = words
      this.refresh()
    }

    get open(): boolean {
      return this.hasAttribute('open')
    }

    set open(open: boolean) {
      this.toggleAttribute('open', open)
    }

    connectedCallback(): void {
      // What the page has set before the element was defined.
      for (const name of ['getToken', 'chat', 'words'] as const) {
        if (!Object.hasOwn(this, name)) continue
        const value = this[name]
        delete this[name]
        Object.assign(this, { [name]: value })
      }
      this.refresh()
      this.start(false)
    }

    disconnectedCallback(): void {
      this.leave?.()
      this.leave = undefined
    }

    attributeChangedCallback(name: string, before: string | null, after: string | null): void {
      if (before === after || !this.isConnected) return
      if (name === 'open') this.dispatchEvent(new Event(this.open ? 'gre-open' : 'gre-close'))
      this.refresh()
      this.start()
    }

    /** Begin anew with another token or another chat. */
    private restart(): void {
      this.leave?.()
      this.leave = undefined
      this.made?.then((chat) => chat.close(), () => {})
      this.shown?.unmount()
      this.chatting = this.made = this.panel = this.shown = undefined
      this.count = 0
      if (!this.isConnected) return
      this.refresh()
      this.start(false)
    }

    /** `focus`: an opened panel gets the focus, since somebody has just opened it. */
    private start(focus = true): void {
      if (this.open) void this.show(focus)
      else {
        this.shown?.hide()
        // The page loads first.
        if (this.hasAttribute('unread') && (this.asked || this.given)) (window.requestIdleCallback ?? setTimeout)(() => void this.listen().catch(() => {}))
      }
    }

    /** Load the client, and count what is unread from now on. */
    private async listen(): Promise<Chat> {
      const { given } = this
      this.chatting ??= given
        ? Promise.resolve(given)
        : (this.made = modules.core().then(({ createChat }) =>
            createChat({ url: this.getAttribute('url') ?? url, getToken: (refused) => this.token(refused), name: this.getAttribute('name') ?? '' }),
          ))
      const current = this.chatting
      current.catch(() => current === this.chatting && (this.chatting = undefined))
      const chat = await current
      if (current === this.chatting && this.isConnected && !this.leave) {
        const listener = (): void => {
          const count = chat.unread()
          if (count === this.count) return
          this.count = count
          this.refresh()
          this.dispatchEvent(new CustomEvent('gre-unread', { detail: count }))
        }
        this.leave = chat.subscribe(listener)
        listener()
      }
      return chat
    }

    private async show(focus: boolean): Promise<void> {
      this.button.ariaBusy = 'true'
      try {
        const chat = await this.listen()
        if (!this.panel) {
          const { root, button } = this
          const mounting = (this.panel = modules.panel().then(({ mount }) => mount({ root, button, chat, element: this })))
          mounting.catch(() => mounting === this.panel && (this.panel = undefined))
        }
        const current = this.panel
        const panel = await current
        if (current !== this.panel) panel.unmount()
        else this.shown = panel
        if (this.open) this.shown?.show(focus)
      } catch {
        this.open = false
        this.news.textContent = this.button.title = this.label('failed')
      }
      this.button.ariaBusy = null
    }

    /** Ask the page for a token: `getToken`, or the event that `token-event` names. */
    private token(refused: boolean): ReturnType<GetToken> {
      if (this.asked) return this.asked(refused)
      let answer: ReturnType<GetToken> = null
      const name = this.getAttribute('token-event')
      if (name) {
        const detail = { refused, respond: (token: typeof answer) => void (answer = token) }
        this.dispatchEvent(new CustomEvent(name, { bubbles: true, composed: true, detail }))
      }
      return answer
    }

    private label(name: Label): string {
      const { lang } = this.closest<HTMLElement>('[lang]') ?? this
      return this.words[name] ?? (LABELS[lang.slice(0, 2)] ?? LABELS['en']!)[name]
    }

    private refresh(): void {
      const { button, badge, count } = this
      const news = count ? this.label('unread').replace('{n}', String(count)) : ''
      button.ariaExpanded = String(this.open)
      this.region.ariaLabel = this.label('title')
      button.ariaLabel = this.label('open') + (news && `, ${news}`)
      badge.textContent = count > 99 ? '99+' : String(count)
      badge.hidden = !count
      this.news.textContent = this.open ? '' : news
      this.shown?.update()
    }
  }

  customElements.define('gre-chat', GreChat)
}

function svg(name: string, attributes: Record<string, string>): SVGElement {
  const created = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value)
  return created
}
