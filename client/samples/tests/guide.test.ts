import { beforeEach, describe, expect, it, vi } from 'vitest'
import guide from '../../../docs/client.md?raw'
import portals from '../../../docs/portals.md?raw'
import { Daemon } from '../../tests/support/daemon.js'
import { ASHA, SAM } from '../../tests/support/page.js'
import next from '../next/app/ChatPage.tsx?raw'
import player from '../pages/player.js?raw'
import pusher from '../pages/pusher.js?raw'
import settings from '../pages/settings.js?raw'
import staff from '../pages/staff.js?raw'
import vite from '../vite/src/ChatPage.tsx?raw'

/** Lines that a page has at most. */
const MOST = 29

describe('docs/client.md', () => {
  it('shows the samples as they are, and no other page', () => {
    const blocks = [...guide.matchAll(/^```(?:jsx?|tsx?)\n(.*?)^```$/gms)].map(([, code]) => code)
    expect(blocks).toEqual([player, staff, vite, pusher])
  })

  it('has pages of less than 30 lines, for Next.js, too', () => {
    for (const page of [player, staff, vite, next, pusher]) expect(page.trimEnd().split('\n').length).toBeLessThanOrEqual(MOST)
  })

  it('shows for Vite what the sample for Next.js has, but for one line', () => {
    expect(next).toBe(`'use client'\n${vite}`)
  })

  it('names the variables that the settings of the pages read', () => {
    for (const name of settings.match(/VITE_\w+/g)!) expect(guide).toContain(`\`${name}\``)
  })
})

describe('docs/portals.md', () => {
  it('has a page of staff that subscribes again after refusals that may pass, and stops where it has no right', () => {
    const [, snippet] = /^```js\n(\/\/ staff: receive what colleagues do\n.*?)^```$/ms.exec(portals)!
    const handlers: Record<string, (event?: object) => void> = {}
    const channel = { bind: (name: string, handler: () => void) => ((handlers[name] = handler), channel) }
    const subscribe = vi.fn(() => channel)
    const show = vi.fn()
    const run = new Function('pusher', 'show', 'readAgain', 'setTimeout', snippet!)
    run({ subscribe }, show, () => {}, (act: () => void) => act())
    const refuse = (status: number): void => {
      for (let n = 0; n < 9; n += 1) handlers['pusher:subscription_error']!({ type: 'AuthError', status })
    }
    refuse(503)
    expect(subscribe).toHaveBeenCalledTimes(1 + 9)
    handlers['pusher:subscription_succeeded']!()
    subscribe.mockClear()
    refuse(403)
    expect(subscribe).toHaveBeenCalledTimes(4)
    expect(show).toHaveBeenLastCalledWith('No right to this channel.')
  })
})

describe('a page of the guide', () => {
  let daemon: Daemon
  const texts = (selector = 'li'): (string | null)[] => [...document.querySelectorAll(selector)].map(({ textContent }) => textContent)
  /** Wait until this holds; the limit is a bound on hanging. */
  const shown = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 30_000 })
  const write = (text: string): void => {
    document.querySelector<HTMLInputElement>('[name=text]')!.value = text
    document.querySelector('form')!.dispatchEvent(new Event('submit', { cancelable: true }))
  }

  beforeEach(() => {
    vi.useRealTimers()
    vi.resetModules()
    localStorage.clear()
    document.body.innerHTML = '<p id="state"></p><div id="queue"></div><ol id="messages"></ol><form id="write"><input name="text"></form>'
    daemon = new Daemon()
    daemon.persons.set(ASHA, { role: 'player', playerId: 29 })
    daemon.persons.set(SAM, { role: 'staff', staffId: 's1' })
  })

  /** Load a page whose portal's server answers with this token. */
  async function load(page: string, token: string): Promise<void> {
    const { fetch } = globalThis
    globalThis.fetch = async (url, init) => (String(url).startsWith('/api/chat-token') ? new Response(token) : fetch(url, init))
    await import(`../pages/${page}.js`)
  }

  it('shows a player what is written on both sides', async () => {
    daemon.store('s1', 'staff', 'Welcome.')
    await load('player', ASHA)
    await shown(() => expect(texts()).toEqual(['Sam: Welcome.']))
    expect(texts('#state')).toEqual(['live'])
    await shown(() => expect(daemon.marks).toEqual([{ sessionId: 's1', upToSeq: 1 }]))
    write('Is table 4 open?')
    await shown(() => expect(texts()).toEqual(['Sam: Welcome.', 'Asha: Is table 4 open?']))
    expect(daemon.sessions.get('s1')!.messages.map(({ message }) => message)).toEqual(['Welcome.', 'Is table 4 open?'])
  })

  it('shows staff the queue, and sends a reply into the session that was opened', async () => {
    daemon.store('s1', 'player', 'Hello?')
    daemon.store('s2', 'player', 'Anybody?')
    const alert = vi.fn()
    vi.stubGlobal('alert', alert)
    await load('staff', SAM)
    expect(document.querySelector('form')!.hidden, 'nobody to write to').toBe(true)
    await shown(() => expect(texts('#queue button')).toHaveLength(2))
    const open = (text: string): void =>
      [...document.querySelectorAll<HTMLButtonElement>('#queue button')].find(({ textContent }) => textContent === text)?.click()
    open('Asha: Hello?')
    await shown(() => expect(texts()).toEqual(['Asha: Hello?']))
    await shown(() => expect(daemon.sessions.get('s1')!.assigned_staff_id).toBe('s1'))
    write('Good evening.')
    await shown(() => expect(daemon.sessions.get('s1')!.messages.map(({ message }) => message)).toEqual(['Hello?', 'Good evening.']))
    expect(daemon.sessions.get('s2')!.messages).toHaveLength(1)
    expect(alert).not.toHaveBeenCalled()
    await shown(() => expect(daemon.marks).toContainEqual({ sessionId: 's1', upToSeq: 1 }))
    const field = document.querySelector<HTMLInputElement>('[name=text]')!
    field.value = 'half written'
    daemon.refusal = { status: 409, code: 'session_taken' }
    open('Asha: Anybody?')
    await shown(() => expect(alert).toHaveBeenCalledWith('refused'))
    expect(texts()).toEqual(['Asha: Hello?', 'Sam: Good evening.'])
    expect(field.value).toBe('half written')
    daemon.refusal = undefined
    write('Still here.')
    await shown(() => expect(daemon.sessions.get('s1')!.messages.at(-1)!.message).toBe('Still here.'))
    expect(daemon.sessions.get('s2')!.messages).toHaveLength(1)
    field.value = 'for the first'
    open('Asha: Anybody?')
    await shown(() => expect(texts()).toEqual(['Asha: Anybody?']))
    expect(field.value).toBe('')
    open('Asha: Still here.')
    await shown(() => expect(field.value).toBe('for the first'))
  })
})
