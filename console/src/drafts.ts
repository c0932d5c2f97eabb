/**
 * What was written and not sent, by session. A draft is kept in this tab for the person who wrote it, by staff id,
 * and is shown to nobody else who signs in here.
 */

import { keep, kept, keptNames, parsed } from './kept'

const DRAFT = 'gre.draft.'
const OUTBOX = 'gre.outbox.'

export class Drafts {
  /** What was written before the server said who is signed in. */
  private readonly early = new Map<string, string>()

  /** `owner` is empty until it is known. */
  constructor(public owner: string) {}

  of(session: string): string {
    return (this.owner ? kept(this.prefix + session) : this.early.get(session)) ?? ''
  }

  write(session: string, text: string): void {
    if (this.owner) keep(this.prefix + session, text || null)
    else this.early.set(session, text)
  }

  belongTo(owner: string): void {
    this.owner = owner
    for (const [session, text] of this.early) if (text) this.write(session, text)
    this.early.clear()
  }

  get count(): number {
    const early = [...this.early.values()].filter(Boolean).length
    return early + (this.owner ? keptNames(this.prefix).length : 0)
  }

  discard(): void {
    this.early.clear()
    if (this.owner) for (const name of keptNames(this.prefix)) keep(name, null)
  }

  private get prefix(): string {
    return `${DRAFT}${encodeURIComponent(this.owner)}/`
  }
}

/** Where a person's replies are kept that are not stored yet. */
export function outboxKey(owner: string): string {
  return OUTBOX + encodeURIComponent(owner)
}

export interface KeptForOther {
  staffId: string
  replies: number
  drafts: number
}

/** How much is kept in this tab for people other than `me`, who wrote it. */
export function keptForOthers(me: string): KeptForOther[] {
  const found = new Map<string, KeptForOther>()
  const count = (owner: string): KeptForOther => {
    const staffId = decodeURIComponent(owner)
    if (!found.has(staffId)) found.set(staffId, { staffId, replies: 0, drafts: 0 })
    return found.get(staffId)!
  }
  for (const name of keptNames(DRAFT)) count(name.slice(DRAFT.length).split('/')[0]!).drafts += 1
  for (const name of keptNames(OUTBOX)) {
    const replies = Object.values(parsed<Record<string, unknown[]>>(kept(name)) ?? {}).flat().length
    count(name.slice(OUTBOX.length)).replies += replies
  }
  found.delete(me)
  return [...found.values()]
}
