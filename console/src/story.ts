/** The events of one session, in the order of rev, and their texts. */

import { type Api, ApiError } from './api'
import type { Session, SessionEvent } from './types'

export class Story {
  events: SessionEvent[] = []
  /** The state of the session for which the events were requested last. */
  private state = ''
  /** The revision of the session that had this state. */
  private rev = 0
  /** The newest event that the socket reported. */
  private notifiedRev = -1
  /** Incremented by each reason to load. */
  private requests = 0
  private loading = false

  constructor(
    private readonly id: string,
    private readonly api: Api,
    private readonly onChange: () => void,
  ) {}

  /** Load the events after those that are loaded, if the session's state has changed. */
  follow(session: Session): void {
    // A response that a frame has overtaken: its state is not the latest.
    if (session.rev < this.rev) return
    this.rev = session.rev
    const state = [session.status, session.assigned_staff_id, session.cycle].join()
    if (state === this.state) return
    this.state = state
    if (session.rev > this.notifiedRev) this.request()
  }

  /** An event with this rev happened: load it, with those before it that no frame reported. */
  notify(rev: number): void {
    this.notifiedRev = Math.max(this.notifiedRev, rev)
    if (rev > (this.events.at(-1)?.rev ?? 0)) this.request()
  }

  private request(): void {
    this.requests += 1
    if (!this.loading) void this.load()
  }

  private async load(): Promise<void> {
    this.loading = true
    try {
      for (let more = true, answered = 0; more || answered !== this.requests; ) {
        answered = this.requests
        const page = await this.api.events(this.id, { after_rev: this.events.at(-1)?.rev ?? 0 })
        more = page.has_more
        this.events = [...this.events, ...page.events]
        this.onChange()
      }
    } catch (error) {
      // The conversation is complete without its events: the next change of the session loads them.
      this.state = ''
      if (!(error instanceof ApiError)) throw error
    } finally {
      this.loading = false
    }
  }
}

/** The text of an event for staff; empty for events that are not shown. */
export function describeEvent(event: SessionEvent, staffName: (id: string) => string): string {
  const { kind, staff_id: staffId, by_staff_id: byId, data } = event
  const by = byId === null ? '' : ` by ${staffName(byId)}`
  const to = staffId === null ? '' : staffName(staffId)
  switch (kind) {
    case 'assigned':
      return staffId === byId ? `Taken${by}` : `Assigned to ${to}${by}`
    case 'transferred':
      return staffId === byId ? `Taken over from ${staffName(String(data.from))}${by}` : `Handed over to ${to}${by}`
    case 'released':
      return `Unassigned${by}`
    case 'closed':
      return data.by === 'player' ? 'Closed by the player' : data.by === 'idle' ? 'Closed: no answer from the player' : `Closed${by}`
    case 'reopened':
      return `Reopened${by}`
    case 'blocked':
      return `Player blocked${by}`
    case 'unblocked':
      return `Player unblocked${by}`
    default:
      return ''
  }
}
