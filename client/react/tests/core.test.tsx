import { StrictMode, act, useEffect, useState } from 'react'
import { expect, it, vi } from 'vitest'
import { Daemon } from '../../tests/support/daemon.js'
import { ASHA, SAM, memoryStorage, pass } from '../../tests/support/page.js'
import { GreProvider, type GreProviderProps, useChatStatus, useMessages, useSend, useSession, useSessions, useTyping, useUnread, useUnsent } from '../index.js'
import { type Page, change, mount } from './render.js'

/** A page in StrictMode with a chat of its own, against a daemon in memory. */
async function open(content: GreProviderProps['children'], token = ASHA): Promise<{ daemon: Daemon; page: Page; asked: boolean[] }> {
  const daemon = new Daemon()
  daemon.persons.set(ASHA, { role: 'player', playerId: 29 })
  daemon.persons.set(SAM, { role: 'staff', staffId: 's1' })
  const asked: boolean[] = []
  const storage = memoryStorage()
  const getToken = (refused: boolean): string => {
    asked.push(refused)
    return token
  }
  const page = await mount(
    <StrictMode>
      <GreProvider url="http://chat.test" getToken={getToken} storage={storage}>
        {content}
      </GreProvider>
    </StrictMode>,
  )
  return { daemon, page, asked }
}

const time = (ms: number): Promise<unknown> => act(() => pass(ms))

function Messages({ of, onRender }: { of?: string; onRender?: () => void }) {
  const { messages, unsent } = useMessages(of)
  // Not while rendering: StrictMode renders twice.
  useEffect(() => onRender?.())
  return [...messages.map(({ message }) => message), ...unsent.map(({ text }) => `(${text})`)].join()
}

function Field() {
  const send = useSend()
  return <button onClick={() => send('hello')} />
}

const press = (): Promise<void> => change(() => document.querySelector('button')?.click())
const stored = (daemon: Daemon): string[] => [...daemon.sessions.values()].flatMap(({ messages }) => messages.map(({ message }) => message))

it('StrictMode opens one connection and asks for one token', async () => {
  const { daemon, page, asked } = await open(<Messages />)
  daemon.store('s1', 'staff', 'one')
  await time(10_000)
  expect(page.text()).toBe('one')
  expect(daemon.sockets).toHaveLength(1)
  expect(new Set(asked)).toEqual(new Set([false]))
})

it('a text that is sent before there is a connection is shown at once and stored once', async () => {
  const { daemon, page } = await open([<Messages key="messages" />, <Field key="field" />])
  await press()
  expect(page.text()).toBe('(hello)')
  await time(10_000)
  expect(page.text()).toBe('hello')
  expect(stored(daemon)).toEqual(['hello'])
})

it('a component that sends while it is mounted loses nothing', async () => {
  function Greeting() {
    const send = useSend()
    const [sent, setSent] = useState(false)
    useEffect(() => {
      if (sent) send('from an effect')
    }, [send, sent])
    return <button onClick={() => setSent(true)} />
  }
  const { daemon, page } = await open([<Messages key="messages" />, <Greeting key="greeting" />])
  await press()
  await time(10_000)
  expect(stored(daemon)).toEqual(['from an effect'])
  expect(page.text()).toBe('from an effect')
})

it('over a cut everything is shown once and in order', async () => {
  const { daemon, page } = await open([<Messages key="messages" />, <Field key="field" />])
  daemon.store('s1', 'staff', 'one')
  await time(100)
  await change(() => daemon.socket.end(1006))
  await press()
  daemon.store('s1', 'staff', 'two')
  await time(20_000)
  daemon.store('s1', 'staff', 'three')
  await time(100)
  expect(page.text()).toBe(stored(daemon).join())
  expect(stored(daemon)).toHaveLength(4)
})

it('the connection outlives a change of pages, and closes 5 s after the last hook has left', async () => {
  function Pages() {
    const [shown, setShown] = useState(true)
    return [<button key="toggle" onClick={() => setShown(!shown)} />, shown && <Messages key="messages" />]
  }
  const { daemon, page } = await open(<Pages />)
  await time(100)
  await press()
  await time(3000)
  await press()
  daemon.store('s1', 'staff', 'one')
  await time(100)
  expect(page.text()).toBe('one')
  expect(daemon.sockets).toHaveLength(1)
  await press()
  await time(4900)
  expect(daemon.live).toHaveLength(1)
  await time(200)
  expect(daemon.live).toHaveLength(0)
})

it('a message of another session renders neither a conversation nor what reads none', async () => {
  const first = vi.fn()
  const second = vi.fn()
  const others = vi.fn()
  function Others() {
    useChatStatus()
    useUnsent('one')
    useTyping('one')
    useUnread('one')
    useSend('one')
    useEffect(() => others())
    return null
  }
  const content = [<Messages key="1" of="one" onRender={first} />, <Messages key="2" of="two" onRender={second} />, <Others key="3" />]
  const { daemon, page } = await open(content, SAM)
  daemon.store('one', 'player', 'a')
  daemon.store('two', 'player', 'b')
  await time(10_000)
  expect(page.text()).toBe('ab')
  const before = [first, second, others].map((renders) => renders.mock.calls.length)
  for (const text of ['c', 'd']) {
    await change(() => void daemon.store('two', 'player', text))
    await time(100)
  }
  expect(page.text()).toBe('ab,c,d')
  const after = [first, second, others].map((renders) => renders.mock.calls.length)
  expect(after[0]).toBe(before[0])
  expect(after[1]).toBeGreaterThanOrEqual(before[1]! + 2)
  expect(after[2]).toBe(before[2])
})

it('a list of sessions renders again when one of them has changed', async () => {
  const Unread = () => useSessions().map(({ id, unread_by_staff }) => `${id}:${unread_by_staff}`).join()
  const { daemon, page } = await open(<Unread />, SAM)
  await change(() => void daemon.store('one', 'player', 'a'))
  await time(1000)
  expect(page.text()).toBe('one:1')
  await change(() => void daemon.store('one', 'player', 'b'))
  await time(1000)
  expect(page.text()).toBe('one:2')
})

it('a session renders again when it has changed, and not when another one has', async () => {
  const renders = vi.fn()
  function One() {
    const session = useSession('one')
    useEffect(() => renders())
    return session ? `${session.last_seq}` : 'unknown'
  }
  const { daemon, page } = await open(<One />, SAM)
  expect(page.text()).toBe('unknown')
  await change(() => void daemon.store('one', 'player', 'a'))
  await change(() => void daemon.store('two', 'player', 'b'))
  await time(10_000)
  expect(page.text()).toBe('1')
  const before = renders.mock.calls.length
  await change(() => void daemon.store('two', 'player', 'c'))
  await time(100)
  expect(renders).toHaveBeenCalledTimes(before)
  await change(() => void daemon.store('one', 'player', 'd'))
  await time(100)
  expect(page.text()).toBe('2')
})

it('the provider asks the getToken of the last render, and makes another chat for another address', async () => {
  const daemon = new Daemon()
  daemon.persons.set(ASHA, { role: 'player', playerId: 29 })
  daemon.persons.set('renewed', { role: 'player', playerId: 29 })
  const storage = memoryStorage()
  const content = (url: string, token: string) => (
    <GreProvider url={url} getToken={() => token} storage={storage}>
      <Messages />
    </GreProvider>
  )
  const page = await mount(content('http://chat.test', ASHA))
  await time(100)
  daemon.persons.delete(ASHA)
  await page.render(content('http://chat.test', 'renewed'))
  await change(() => daemon.socket.end(4401))
  await time(5000)
  expect(daemon.live).toHaveLength(1)
  await page.render(content('http://other.test', 'renewed'))
  await time(100)
  expect(daemon.socket.url).toBe('ws://other.test/ws')
})
