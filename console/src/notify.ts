/** Sound and desktop notification for what nobody looks at. They carry a name, never text. */

import { keep, kept } from './kept'
import type { Life } from './life'

const KEY = 'gre.notify'
const CROWD = 1500

export class Bell {
  on = kept(KEY, true) !== 'off'
  /** How often it rang. */
  rung = 0
  private last = 0
  private sound: AudioContext | undefined

  constructor(
    private readonly changed: () => void,
    { signal }: Life,
  ) {
    // Browsers let a page sound only after its user has touched it.
    const wake = (): void => void this.context()?.resume().catch(() => {})
    addEventListener('pointerdown', wake, { passive: true, signal })
    addEventListener('keydown', wake, { passive: true, signal })
    signal.addEventListener('abort', () => void this.sound?.close().catch(() => {}))
  }

  /** Whether the browser would have to be asked for desktop notifications. */
  get askable(): boolean {
    return this.on && 'Notification' in globalThis && Notification.permission === 'default'
  }

  async turn(on: boolean): Promise<void> {
    this.on = on
    keep(KEY, on ? 'on' : 'off', true)
    this.changed()
    if (this.askable) await this.allow()
  }

  async allow(): Promise<void> {
    await Notification.requestPermission().catch(() => 'denied')
    this.changed()
  }

  /** Ring and show a line, if nobody looks at the page. `open` is called when the notification is clicked. */
  ring(line: string, session: string, open: () => void): void {
    if (!this.on || (!document.hidden && document.hasFocus())) return
    this.rung += 1
    if (Date.now() - this.last > CROWD) {
      this.last = Date.now()
      this.play()
    }
    if ('Notification' in globalThis && Notification.permission === 'granted') {
      try {
        const shown = new Notification(line, { tag: session, lang: 'en' })
        shown.onclick = () => {
          focus()
          open()
          shown.close()
        }
      } catch {
        // Some phones allow notifications from service workers only.
      }
    }
    this.changed()
  }

  private context(): AudioContext | undefined {
    if (this.on && 'AudioContext' in globalThis) this.sound ??= new AudioContext()
    return this.sound
  }

  private play(): void {
    const context = this.context()
    if (context?.state !== 'running') return
    for (const [pitch, after] of [[740, 0], [988, 0.12]] as const) {
      const tone = context.createOscillator()
      const loud = context.createGain()
      const at = context.currentTime + after
      tone.frequency.value = pitch
      loud.gain.setValueAtTime(0, at)
      loud.gain.linearRampToValueAtTime(0.12, at + 0.015)
      loud.gain.exponentialRampToValueAtTime(0.001, at + 0.28)
      tone.connect(loud).connect(context.destination)
      tone.start(at)
      tone.stop(at + 0.3)
    }
  }
}
