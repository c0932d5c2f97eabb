import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { Notifier } from '../src/notifier'
import { TaskScope } from '../src/scope'

interface FakeSound {
  onended?: () => void
  [name: string]: unknown
}

/** The browser's audio: a sound ends when the test says so. */
class FakeAudio {
  static last: FakeAudio
  state = 'suspended'
  currentTime = 0
  readonly playing: FakeSound[] = []
  readonly destination = {}
  started = 0

  constructor() {
    FakeAudio.last = this
  }

  async resume(): Promise<void> {
    this.state = 'running'
    this.started += 1
  }

  async suspend(): Promise<void> {
    this.state = 'suspended'
  }

  async close(): Promise<void> {
    this.state = 'closed'
  }

  createOscillator(): FakeSound {
    const oscillator: FakeSound = { frequency: {}, connect: (to: unknown) => to, start: () => this.playing.push(oscillator), stop: () => {} }
    return oscillator
  }

  createGain(): object {
    return { gain: { setValueAtTime() {}, linearRampToValueAtTime() {}, exponentialRampToValueAtTime() {} }, connect: (to: unknown) => to }
  }
}

const page = new EventTarget()

beforeEach(() => {
  vi.stubGlobal('addEventListener', page.addEventListener.bind(page))
  vi.stubGlobal('document', { hidden: true, hasFocus: () => false })
  vi.stubGlobal('AudioContext', FakeAudio)
})

afterEach(() => {
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

test('audio runs only while there is a sound, and not before the user has interacted with the page', async () => {
  const scope = new TaskScope()
  const notifier = new Notifier(() => {}, scope)
  notifier.notify('New message from Asha', 's1', () => {})
  await vi.waitFor(() => expect(FakeAudio.last.state).toBe('suspended'))
  expect(FakeAudio.last.started).toBe(0)
  page.dispatchEvent(new Event('keydown'))
  await vi.waitFor(() => expect(FakeAudio.last).toMatchObject({ state: 'suspended', started: 1 }))
  page.dispatchEvent(new Event('pointerdown'))
  expect(FakeAudio.last.started).toBe(1)
  vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 5000)
  notifier.notify('New message from Asha', 's1', () => {})
  await vi.waitFor(() => expect(FakeAudio.last).toMatchObject({ state: 'running', playing: [{}, {}] }))
  FakeAudio.last.playing.at(-1)!.onended!()
  await vi.waitFor(() => expect(FakeAudio.last.state).toBe('suspended'))
  scope.close()
  expect(FakeAudio.last.state).toBe('closed')
})
