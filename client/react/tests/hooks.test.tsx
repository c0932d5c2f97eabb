import { StrictMode, Suspense, lazy, version } from 'react'
import { renderToString } from 'react-dom/server'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import type { Chat } from '../../src/index.js'
import {
  GreProvider,
  useChat,
  useMessages,
  useNotes,
  useQueue,
  useSend,
  useDesk,
  useStaffOnline,
  useUnread,
} from '../index.js'
import { FakeChat } from './fake-chat.js'
import { change, hydrate, mount } from './render.js'

function Messages({ of, onRender }: { of?: string; onRender?: () => void }) {
  onRender?.()
  const { messages, unsent, state } = useMessages(of)
  return (
    <p>
      {state}:{messages.map(({ message }) => message).join()}
      {unsent.map(({ text }) => ` (${text})`)}
    </p>
  )
}

it('runs with the React that this project is for', () => {
  expect(version.split('.')[0]).toBe(inject('react'))
})

describe('what renders again', () => {
  it('is a conversation with a new message, and no other one', async () => {
    const chat = new FakeChat()
    const first = vi.fn()
    const second = vi.fn()
    const page = await mount(
      <GreProvider chat={chat}>
        <Messages of="s1" onRender={first} />
        <Messages of="s2" onRender={second} />
      </GreProvider>,
    )
    const before = second.mock.calls.length
    for (const text of ['a', 'b', 'c']) await change(() => chat.deliver(text, 's1'))
    expect(page.text()).toBe('complete:a,b,cloading:')
    expect(first).toHaveBeenCalledTimes(4)
    expect(second).toHaveBeenCalledTimes(before)
  })

  it('is only what reads the part that has changed', async () => {
    const chat = new FakeChat()
    const unreadRenders = vi.fn()
    const sendRenders = vi.fn()
    function Unread() {
      unreadRenders()
      return <b>{useUnread()}</b>
    }
    function Field() {
      sendRenders()
      useSend()
      return null
    }
    const page = await mount(
      <GreProvider chat={chat}>
        <Unread />
        <Field />
      </GreProvider>,
    )
    await change(() => chat.deliver('a'))
    expect(unreadRenders).toHaveBeenCalledTimes(1)
    await change(() => {
      chat.unreadCount = 2
      chat.emit()
    })
    expect(page.text()).toBe('2')
    expect(unreadRenders).toHaveBeenCalledTimes(2)
    expect(sendRenders).toHaveBeenCalledTimes(1)
  })

  it('is nothing when a filter of a queue is written as a literal', async () => {
    const chat = new FakeChat()
    chat.queues.set('none', { sessions: [], state: 'complete', hasMore: true })
    function Queue() {
      const { state, hasMore } = useQueue({ status: 'active', assigned: 'none' })
      return <p>{`${state} ${hasMore}`}</p>
    }
    const content = (
      <GreProvider chat={chat}>
        <Queue />
      </GreProvider>
    )
    const page = await mount(content)
    await page.render(<GreProvider chat={chat}>{<Queue />}</GreProvider>)
    expect(page.text()).toBe('complete true')
    const filters = chat.called('queue').map(([filter]) => filter)
    expect(filters[0]).toEqual({ status: 'active', assigned: 'none' })
    expect(new Set(filters).size).toBe(1)
  })
})

it('renders once a frame while very many messages come, shows them all, and renders at once again afterwards', async () => {
  const chat = new FakeChat()
  const renders = vi.fn()
  const page = await mount(
    <GreProvider chat={chat}>
      <Messages of="s1" onRender={renders} />
    </GreProvider>,
  )
  onTestFinished(() => void vi.useRealTimers())
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
  const texts = Array.from({ length: 300 }, (_, n) => `m${n}`)
  const deliver = async (some: string[]): Promise<void> => {
    for (const text of some) await change(() => chat.deliver(text))
  }
  await deliver(texts.slice(0, 20))
  expect(renders).toHaveBeenCalledTimes(1 + 20)
  await deliver(texts.slice(20))
  expect(renders).toHaveBeenCalledTimes(1 + 20)
  await change(() => vi.advanceTimersByTime(16))
  expect(page.text()).toBe(`complete:${texts.join()}`)
  expect(renders).toHaveBeenCalledTimes(1 + 20 + 1)
  vi.advanceTimersByTime(1001)
  await deliver(['later'])
  expect(page.text()).toBe(`complete:${texts.join()},later`)
})

describe('what staff see', () => {
  it('are notes and colleagues, as they change', async () => {
    const chat = new FakeChat()
    function Notes() {
      const { notes, state } = useNotes('s1')
      const online = useStaffOnline()
      return [state, ...notes.map(({ text }) => text), ...online.map(({ displayName }) => displayName)].join()
    }
    const page = await mount(
      <GreProvider chat={chat}>
        <Notes />
      </GreProvider>,
    )
    expect(page.text()).toBe('loading')
    const note = { id: 'n1', session_id: 's1', n: 1, after_seq: 0, staff_id: 's1', staff_name: 'Sam', text: 'regular', created_at: '' }
    await change(() => {
      chat.sessionNotes = { notes: [note], unsent: [], state: 'complete' }
      chat.online = [{ staffId: 's2', displayName: 'Sue', status: 'online' }]
      chat.emit()
    })
    expect(page.text()).toBe('complete,regular,Sue')
  })
})

describe('what players see', () => {
  it('is whether the desk is open, as it changes', async () => {
    const chat = new FakeChat()
    function Door() {
      const desk = useDesk()
      return desk ? (desk.open ? 'open' : `from ${desk.opensAt}`) : 'unknown'
    }
    const page = await mount(
      <GreProvider chat={chat}>
        <Door />
      </GreProvider>,
    )
    expect(page.text()).toBe('unknown')
    await change(() => {
      chat.opening = { open: false, opensAt: '2026-11-30T08:00:00.000Z', closesAt: null, timezone: 'Europe/Malta' }
      chat.emit()
    })
    expect(page.text()).toBe('from 2026-11-30T08:00:00.000Z')
  })
})

describe('in StrictMode', () => {
  it('each hook is subscribed once, and after the page has gone no more', async () => {
    const chat = new FakeChat()
    const page = await mount(
      <StrictMode>
        <GreProvider chat={chat}>
          <Messages />
          <Messages of="s2" />
        </GreProvider>
      </StrictMode>,
    )
    expect(chat.listeners.size).toBe(2)
    await page.unmount()
    expect(chat.listeners.size).toBe(0)
    expect(chat.called('close')).toEqual([])
  })

  it('a text is sent once and shown at once', async () => {
    const chat = new FakeChat()
    let send: Chat['send'] | undefined
    function Field() {
      send = useSend()
      return null
    }
    const page = await mount(
      <StrictMode>
        <GreProvider chat={chat}>
          <Field />
          <Messages />
        </GreProvider>
      </StrictMode>,
    )
    await change(() => send?.('hello'))
    expect(chat.called('send')).toEqual([['hello', undefined]])
    expect(page.text()).toBe('loading: (hello)')
  })
})

describe('on a server', () => {
  it('a chat with messages renders as one that loads, and subscribes nothing', () => {
    const chat = new FakeChat()
    chat.deliver('secret of another request')
    const html = renderToString(
      <GreProvider chat={chat}>
        <Messages />
      </GreProvider>,
    )
    expect(html).toBe('<p>loading<!-- -->:</p>')
    expect(chat.listeners.size).toBe(0)
  })

  it('the page is taken over without a difference, and then shows what the chat has', async () => {
    const chat = new FakeChat()
    const content = (
      <GreProvider chat={chat}>
        <Messages />
      </GreProvider>
    )
    const html = renderToString(content)
    chat.deliver('early')
    const page = await hydrate(html, content)
    expect(page.text()).toBe('complete:early')
    await change(() => chat.deliver('late'))
    expect(page.text()).toBe('complete:early,late')
  })
})

describe('below Suspense', () => {
  it('what arrives while a part of the page waits is shown afterwards, and nothing stays subscribed twice', async () => {
    const chat = new FakeChat()
    let arrive: (() => void) | undefined
    const Late = lazy(async () => {
      await new Promise<void>((resolve) => {
        arrive = resolve
      })
      return { default: () => <i>ready</i> }
    })
    const page = await mount(
      <GreProvider chat={chat}>
        <Suspense fallback="waiting">
          <Messages />
          <Late />
        </Suspense>
      </GreProvider>,
    )
    expect(page.text()).toBe('waiting')
    expect(chat.listeners.size).toBe(0)
    await change(() => chat.deliver('meanwhile'))
    await change(() => arrive?.())
    expect(page.text()).toBe('complete:meanwhileready')
    expect(chat.listeners.size).toBe(1)
  })

  it('a conversation that is shown already goes on while a new part waits beside it', async () => {
    const chat = new FakeChat()
    const Never = lazy(() => new Promise<never>(() => {}))
    function Page({ more }: { more: boolean }) {
      return (
        <GreProvider chat={chat}>
          <Messages />
          <Suspense fallback="waiting">{more && <Never />}</Suspense>
        </GreProvider>
      )
    }
    const page = await mount(<Page more={false} />)
    await page.render(<Page more />)
    await change(() => chat.deliver('a'))
    expect(page.text()).toBe('complete:awaiting')
  })
})

describe('the provider', () => {
  it('is missed with a sentence', () => {
    expect(() => renderToString(<Messages />)).toThrow('There is no GreProvider above this component.')
  })

  it('gives the chat that it was given, and another one when that changes', async () => {
    const chats = [new FakeChat(), new FakeChat()] as const
    chats[1].deliver('of the second')
    const seen: Chat[] = []
    function Seen() {
      seen.push(useChat())
      return <Messages />
    }
    const page = await mount(
      <GreProvider chat={chats[0]}>
        <Seen />
      </GreProvider>,
    )
    await page.render(
      <GreProvider chat={chats[1]}>
        <Seen />
      </GreProvider>,
    )
    expect(new Set(seen)).toEqual(new Set(chats))
    expect(page.text()).toBe('complete:of the second')
    expect(chats[0].listeners.size).toBe(0)
  })
})
