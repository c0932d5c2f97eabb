/** Who types: the others, until they stop or a while has passed; and oneself, told no oftener than needed. */

const TYPING_FOR = 6000
const TELL_EVERY = 3000

export class Typing {
  private readonly known = new Map<string, { by: 'player' | 'staff'; timer: number }>()
  private toldAt = 0

  constructor(
    /** Tell the server that one types in the open session, or has stopped. */
    private readonly tell: (typing: boolean) => void,
    private readonly changed: () => void,
  ) {}

  /** Who types in a session. */
  in(session: string): 'player' | 'staff' | undefined {
    return this.known.get(session)?.by
  }

  heard(session: string, by: 'player' | 'staff', typing: boolean): void {
    clearTimeout(this.known.get(session)?.timer)
    if (typing) this.known.set(session, { by, timer: setTimeout(() => this.heard(session, by, false), TYPING_FOR) })
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
