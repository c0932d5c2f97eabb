/** Who types: the others, until they stop or a while has passed; and oneself, told no oftener than needed. */

import type { Life } from './life'

const TYPING_FOR = 6000
const TELL_EVERY = 3000

export class Typing {
  private readonly known = new Map<string, { by: 'player' | 'staff'; who: string; timer: number | undefined }>()
  private toldAt = 0

  constructor(
    private readonly life: Life,
    /** Tell the server that one types in the open session, or has stopped. */
    private readonly tell: (typing: boolean) => void,
    private readonly changed: () => void,
  ) {}

  /** Who types in a session. */
  in(session: string): 'player' | 'staff' | undefined {
    return this.known.get(session)?.by
  }

  /** The name of the colleague who types in a session, where the server tells it. */
  who(session: string): string {
    return this.known.get(session)?.who || 'A colleague'
  }

  heard(session: string, by: 'player' | 'staff', typing: boolean, who = ''): void {
    this.life.clear(this.known.get(session)?.timer)
    const timer = typing ? this.life.after(TYPING_FOR, () => this.heard(session, by, false)) : undefined
    if (typing) this.known.set(session, { by, who, timer })
    else this.known.delete(session)
    this.changed()
  }

  /** A key was pressed in the reply. */
  keystroke(): void {
    const now = Date.now()
    if (now - this.toldAt < TELL_EVERY) return
    this.toldAt = now
    this.tell(true)
  }

  /** The reply rests, was sent, or was left. */
  hush(): void {
    if (this.toldAt) this.tell(false)
    this.toldAt = 0
  }
}
