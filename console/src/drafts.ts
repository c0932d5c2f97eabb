/**
 * Drafts of replies, by session. A draft is stored in this tab under its author's staff id, and is shown to nobody else
 * who signs in here.
 */

import { getItem, itemNames, parseJson, setItem } from './storage'

const DRAFT_PREFIX = 'gre.draft.'
const REPLIES_PREFIX = 'gre.replies.'

export class Drafts {
  /** Drafts from before the server reported the user's staff id; in memory only. */
  private readonly unowned = new Map<string, string>()

  /** `owner` is the author's staff id, empty while it is unknown. */
  constructor(public owner: string) {}

  get(session: string): string {
    return (this.owner ? getItem(this.prefix + session) : this.unowned.get(session)) ?? ''
  }

  set(session: string, text: string): void {
    if (this.owner) setItem(this.prefix + session, text || null)
    else this.unowned.set(session, text)
  }

  /** Store the drafts under the staff id that the server reported. */
  setOwner(owner: string): void {
    this.owner = owner
    for (const [session, text] of this.unowned) if (text) this.set(session, text)
    this.unowned.clear()
  }

  get count(): number {
    const unowned = [...this.unowned.values()].filter(Boolean).length
    return unowned + (this.owner ? itemNames(this.prefix).length : 0)
  }

  discard(): void {
    this.unowned.clear()
    if (this.owner) for (const name of itemNames(this.prefix)) setItem(name, null)
  }

  private get prefix(): string {
    return `${DRAFT_PREFIX}${encodeURIComponent(this.owner)}/`
  }
}

/** The storage key of a person's unsent replies (see unsent-replies.ts). */
export function unsentRepliesKey(owner: string): string {
  return REPLIES_PREFIX + encodeURIComponent(owner)
}

/** The number of another person's replies and drafts in this tab. */
export interface StoredForOther {
  staffId: string
  replies: number
  drafts: number
}

/** Count the drafts and unsent replies in this tab of people other than `myId`. */
export function storedForOthers(myId: string): StoredForOther[] {
  const byOwner = new Map<string, StoredForOther>()
  const entryOf = (owner: string): StoredForOther => {
    const staffId = decodeURIComponent(owner)
    if (!byOwner.has(staffId)) byOwner.set(staffId, { staffId, replies: 0, drafts: 0 })
    return byOwner.get(staffId)!
  }
  for (const name of itemNames(DRAFT_PREFIX)) entryOf(name.slice(DRAFT_PREFIX.length).split('/')[0]!).drafts += 1
  for (const name of itemNames(REPLIES_PREFIX)) {
    const replies = Object.values(parseJson<Record<string, unknown[]>>(getItem(name)) ?? {}).flat().length
    entryOf(name.slice(REPLIES_PREFIX.length)).replies += replies
  }
  byOwner.delete(myId)
  return [...byOwner.values()]
}
