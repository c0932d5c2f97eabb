/** A page with a chat, against a daemon in memory and with timers that the test moves. */

import { afterEach, beforeEach, vi } from 'vitest'

import { type Chat, type ChatOptions, type ChatStorage, createChat } from '../../src/index.js'
import { Daemon } from './daemon.js'

export function memoryStorage(): ChatStorage {
  const items = new Map<string, string>()
  return {
    get length() {
      return items.size
    },
    key: (index) => [...items.keys()][index] ?? null,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  }
}

/** A token as Supabase makes them, without a signature that counts. */
export function tokenOf(claims: object): string {
  return `h.${btoa(JSON.stringify(claims)).replace(/=/g, '').replace(/\+/g, '-').replace(/\//g, '_')}.s`
}

export const ASHA = tokenOf({ sub: 'a', app_metadata: { gre_role: 'player', player_id: 29 } })
export const BINA = tokenOf({ sub: 'b', app_metadata: { gre_role: 'player', player_id: 30 } })
export const SAM = tokenOf({ sub: 's', app_metadata: { gre_role: 'staff', staff_id: 's1' } })

export interface Page {
  daemon: Daemon
  chat: Chat
  storage: ChatStorage
  /** What getToken returns. */
  token: string | null
  asked: boolean[]
  /** The same page again, as after a reload: the chat before is abandoned without a close. */
  reload(options?: Partial<ChatOptions>): Chat
  leave(): void
}

const chats: Chat[] = []

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-11-29T13:00:00Z'), toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date'] })
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
})

afterEach(() => {
  for (const chat of chats.splice(0)) chat.close()
  vi.useRealTimers()
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})

/** Open a page; `options` are those of the chat. */
export function open(options: Partial<ChatOptions> = {}): Page {
  const daemon = new Daemon()
  daemon.persons.set(ASHA, { role: 'player', playerId: 29 })
  daemon.persons.set(BINA, { role: 'player', playerId: 30 })
  daemon.persons.set(SAM, { role: 'staff', staffId: 's1' })
  const storage = memoryStorage()
  let leave = (): void => {}
  const start = (more: Partial<ChatOptions> = {}): Chat => {
    const chat = createChat({
      url: 'http://chat.test',
      getToken(refused) {
        page.asked.push(refused)
        return page.token
      },
      storage,
      ...options,
      ...more,
    })
    chats.push(chat)
    leave = chat.subscribe(() => {})
    return chat
  }
  const page: Page = {
    daemon,
    storage,
    token: ASHA,
    asked: [],
    chat: undefined as never,
    reload(more) {
      page.chat.close()
      return (page.chat = start(more))
    },
    leave: () => leave(),
  }
  page.chat = start()
  return page
}

/** Let time pass, in milliseconds; parts of the client that are loaded later are there after half of it. */
export async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(Math.floor(ms / 2))
  await vi.dynamicImportSettled()
  await vi.advanceTimersByTimeAsync(Math.ceil(ms / 2))
}

/** The texts that are shown, in their order. */
export const shown = (chat: Chat, sessionId?: string): string[] => chat.messages(sessionId).messages.map(({ message }) => message)
export const unsent = (chat: Chat, sessionId?: string): string[] => chat.messages(sessionId).unsent.map(({ text }) => text)
