/** Sound and desktop notifications while nobody looks at the page. They name a player and never contain message text. */

import type { TaskScope } from './scope'
import { getItem, setItem } from './storage'

const KEY = 'gre.notify'
/** Milliseconds between two sounds. */
const SOUND_INTERVAL = 1500

export class Notifier {
  enabled = getItem(KEY, true) !== 'off'
  /** The number of notifications so far. */
  count = 0
  private lastSoundAt = 0
  private audioContext: AudioContext | undefined
  /** True once the browser has allowed sound. */
  private allowed = false

  constructor(
    private readonly onChange: () => void,
    { signal }: TaskScope,
  ) {
    // Browsers allow sound only after the user has interacted with the page.
    const allow = (): void => void this.allowSound().catch(() => {})
    addEventListener('pointerdown', allow, { passive: true, signal })
    addEventListener('keydown', allow, { passive: true, signal })
    signal.addEventListener('abort', () => void this.audioContext?.close().catch(() => {}))
  }

  /** True if the user has not decided yet about desktop notifications. */
  get canRequestPermission(): boolean {
    return this.enabled && 'Notification' in globalThis && Notification.permission === 'default'
  }

  async setEnabled(enabled: boolean): Promise<void> {
    this.enabled = enabled
    setItem(KEY, enabled ? 'on' : 'off', true)
    this.onChange()
    if (this.canRequestPermission) await this.requestPermission()
  }

  async requestPermission(): Promise<void> {
    await Notification.requestPermission().catch(() => 'denied')
    this.onChange()
  }

  /**
   * Play a sound and show a notification, if enabled and the page has no focus.
   *
   * A click on the notification calls `onClick`.
   */
  notify(line: string, session: string, onClick: () => void): void {
    if (!this.enabled || (!document.hidden && document.hasFocus())) return
    this.count += 1
    if (Date.now() - this.lastSoundAt > SOUND_INTERVAL) {
      this.lastSoundAt = Date.now()
      void this.playSound().catch(() => {})
    }
    if ('Notification' in globalThis && Notification.permission === 'granted') {
      try {
        const notification = new Notification(line, { tag: session, lang: 'en' })
        notification.onclick = () => {
          focus()
          onClick()
          notification.close()
        }
      } catch {
        // Some mobile browsers allow notifications from service workers only.
      }
    }
    this.onChange()
  }

  private ensureAudioContext(): AudioContext | undefined {
    if (this.enabled && 'AudioContext' in globalThis) this.audioContext ??= new AudioContext()
    return this.audioContext
  }

  /** Have the browser allow sound. Until there is one, nothing runs: a running context keeps the machine's audio busy. */
  private async allowSound(): Promise<void> {
    const context = this.ensureAudioContext()
    if (!context || this.allowed) return
    await context.resume()
    this.allowed = true
    await context.suspend()
  }

  private async playSound(): Promise<void> {
    const context = this.ensureAudioContext()
    if (!context || !this.allowed) return
    const at = Date.now()
    await context.resume()
    // The machine's audio may have been taken meanwhile, as by a call.
    if (Date.now() - at > SOUND_INTERVAL) return context.suspend()
    let last: OscillatorNode | undefined
    for (const [frequency, delay] of [[740, 0], [988, 0.12]] as const) {
      const oscillator = context.createOscillator()
      const gain = context.createGain()
      const startAt = context.currentTime + delay
      oscillator.frequency.value = frequency
      gain.gain.setValueAtTime(0, startAt)
      gain.gain.linearRampToValueAtTime(0.12, startAt + 0.015)
      gain.gain.exponentialRampToValueAtTime(0.001, startAt + 0.28)
      oscillator.connect(gain).connect(context.destination)
      oscillator.start(startAt)
      oscillator.stop(startAt + 0.3)
      last = oscillator
    }
    last!.onended = () => void context.suspend().catch(() => {})
  }
}
