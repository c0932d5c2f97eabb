import { StrictMode } from 'react'
import { describe, expect, it, vi } from 'vitest'
import { GreProvider, useFileUrl, useMarkRead, useSend, useTyping, useUnsent, useUpload, useViewers } from '../index.js'
import { FakeChat } from './fake-chat.js'
import { change, mount } from './render.js'

describe('actions', () => {
  it('send names the session of the hook, and options of a call go before it', async () => {
    const chat = new FakeChat()
    function Field() {
      const send = useSend('s7')
      return <button onClick={() => send('hi', { afterSeq: 4 })}>Send</button>
    }
    await mount(
      <GreProvider chat={chat}>
        <Field />
      </GreProvider>,
    )
    await change(() => document.querySelector('button')?.click())
    expect(chat.called('send')).toEqual([['hi', { sessionId: 's7', afterSeq: 4 }]])
  })

  it('a refused text can be sent again or taken back', async () => {
    const chat = new FakeChat()
    chat.send('no')
    function Unsent() {
      const { unsent, retry, discard } = useUnsent()
      return unsent.map(({ id }) => (
        <p key={id}>
          <button onClick={() => retry(id)}>again</button>
          <button onClick={() => discard(id)}>back</button>
        </p>
      ))
    }
    await mount(
      <GreProvider chat={chat}>
        <Unsent />
      </GreProvider>,
    )
    await change(() => document.querySelectorAll('button').forEach((button) => button.click()))
    expect([chat.called('retry'), chat.called('discard')]).toEqual([[['no']], [['no']]])
  })

  it('typing ends when the field leaves the page, and only if it had begun', async () => {
    const chat = new FakeChat()
    function Field() {
      const { typists, setTyping } = useTyping('s1')
      return <button onClick={() => setTyping(true)}>{typists.length}</button>
    }
    const content = (
      <StrictMode>
        <GreProvider chat={chat}>
          <Field />
        </GreProvider>
      </StrictMode>
    )
    await (await mount(content)).unmount()
    expect(chat.called('setTyping')).toEqual([])
    const page = await mount(content)
    await change(() => document.querySelector('button')?.click())
    await page.unmount()
    expect(chat.called('setTyping')).toEqual([
      [true, 's1'],
      [false, 's1'],
    ])
  })

  it('messages are marked as read when the page is visible, and not before', async () => {
    const chat = new FakeChat()
    function Reader() {
      useMarkRead()
      return null
    }
    const visibility = vi.spyOn(document, 'visibilityState', 'get').mockReturnValue('hidden')
    await mount(
      <GreProvider chat={chat}>
        <Reader />
      </GreProvider>,
    )
    await change(() => chat.deliver('a'))
    expect(chat.called('markRead')).toEqual([])
    visibility.mockReturnValue('visible')
    await change(() => document.dispatchEvent(new Event('visibilitychange')))
    expect(chat.called('markRead')).toEqual([[undefined]])
    await change(() => chat.deliver('b'))
    expect(chat.called('markRead')).toHaveLength(2)
  })

  it('a session is viewed while its page is open', async () => {
    const chat = new FakeChat()
    function Viewers({ of }: { of: string }) {
      return useViewers(of).length
    }
    const page = await mount(
      <GreProvider chat={chat}>
        <Viewers of="s1" />
      </GreProvider>,
    )
    await page.render(
      <GreProvider chat={chat}>
        <Viewers of="s2" />
      </GreProvider>,
    )
    await page.unmount()
    expect(chat.called('viewing')).toEqual([
      ['s1', true],
      ['s1', false],
      ['s2', true],
      ['s2', false],
    ])
  })
})

describe('files', () => {
  function Composer() {
    const { uploads, busy, add, describe, remove, take } = useUpload('s1')
    return (
      <>
        <p>
          {uploads.map(({ name, state, progress }) => `${name} ${state} ${progress} `)}
          {busy && 'busy'}
        </p>
        <button onClick={() => add([new File(['x'], 'a.png'), new File(['y'], 'b.pdf')], { alt: 'two' })}>add</button>
        <button onClick={() => remove('file-2')}>remove</button>
        <button onClick={(event) => (event.currentTarget.title = take().join())}>take</button>
        <button onClick={() => describe('file-1', 'My table')}>describe</button>
      </>
    )
  }

  it('are listed with their progress, and taken when they are stored', async () => {
    const chat = new FakeChat()
    const page = await mount(
      <GreProvider chat={chat}>
        <Composer />
      </GreProvider>,
    )
    const [add, remove, take, say] = document.querySelectorAll('button')
    const shown = () => document.querySelector('p')?.textContent
    await change(() => add?.click())
    expect(chat.called('upload')).toEqual([[{ sessionId: 's1', alt: 'two' }], [{ sessionId: 's1', alt: 'two' }]])
    await change(() => chat.uploads[0]?.set('stored', 1))
    await change(() => chat.uploads[1]?.set('uploading', 0.5))
    expect(shown()).toBe('a.png stored 1 b.pdf uploading 0.5 busy')
    await change(() => say?.click())
    expect(chat.uploads.map(({ alt }) => alt)).toEqual(['My table', ''])
    expect(shown()).toBe('a.png uploading 1 b.pdf uploading 0.5 busy')
    await change(() => chat.uploads[0]?.set('stored', 1))
    await change(() => take?.click())
    expect(take?.title).toBe('file-1')
    expect(shown()).toBe('b.pdf uploading 0.5 busy')
    await change(() => remove?.click())
    expect(shown()).toBe('')
    expect(chat.uploads.map(({ cancelled }) => cancelled)).toEqual([false, true])
    await page.unmount()
  })

  it('an address is never shown for another file, however late it comes', async () => {
    const chat = new FakeChat()
    function Picture({ id }: { id: string }) {
      return useFileUrl({ id, state: 'ready' }, 'thumb') ?? 'none'
    }
    const content = (id: string) => (
      <GreProvider chat={chat}>
        <Picture id={id} />
      </GreProvider>
    )
    const page = await mount(content('one'))
    await page.render(content('two'))
    await change(() => chat.addresses.get('two')?.('https://two'))
    expect(page.text()).toBe('https://two')
    await change(() => chat.addresses.get('one')?.('https://one'))
    expect(page.text()).toBe('https://two')
    await page.render(content('one'))
    expect(page.text()).toBe('none')
  })
})
