/**
 * Drafts of replies, notes and forms. A draft is stored in this tab under its author's staff id, and is shown to nobody
 * else who signs in here. A session's drafts of different kinds are separate: a note is never shown in the reply box.
 */

import { countKeptTexts } from './kept-texts'
import { getItem, itemNames, setItem } from './storage'

const DRAFT_PREFIX = 'gre.draft.'

export type DraftKind = 'reply' | 'note' | 'hand-over' | 'block' | 'form' | 'files'

export class Drafts {
  /** Incremented when a draft is changed by another component than its field. */
  revision = 0
  /** Drafts from before the server reported the user's staff id; in memory only. */
  private readonly unowned = new Map<string, string>()

  /** `owner` is the author's staff id, empty while it is unknown. */
  constructor(public owner: string) {}

  /** The draft for a session's id, or of a form for its name. */
  get(subject: string, kind: DraftKind = 'reply'): string {
    const key = keyOf(subject, kind)
    return (this.owner ? getItem(this.prefix + key) : this.unowned.get(key)) ?? ''
  }

  set(subject: string, text: string, kind: DraftKind = 'reply'): void {
    this.store(keyOf(subject, kind), text)
  }

  /** Add a text to a draft, on a line of its own. */
  append(subject: string, text: string, kind: DraftKind = 'reply'): void {
    const existing = this.get(subject, kind)
    this.set(subject, existing ? `${existing}\n${text}` : text, kind)
    this.revision += 1
  }

  /** Store the drafts under the staff id that the server reported. */
  setOwner(owner: string): void {
    this.owner = owner
    for (const [key, text] of this.unowned) if (text) this.store(key, text)
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

  private store(key: string, text: string): void {
    if (this.owner) setItem(this.prefix + key, text || null)
    else this.unowned.set(key, text)
  }

  private get prefix(): string {
    return `${DRAFT_PREFIX}${encodeURIComponent(this.owner)}/`
  }
}

function keyOf(subject: string, kind: DraftKind): string {
  return kind === 'reply' ? subject : `${subject}/${kind}`
}

/** The number of another person's replies, notes and drafts in this tab. */
export interface StoredForOther {
  staffId: string
  replies: number
  notes: number
  drafts: number
}

/** Count the drafts, unsent replies and unsent notes in this tab of people other than `myId`. */
export function storedForOthers(myId: string): StoredForOther[] {
  const byOwner = new Map<string, StoredForOther>()
  const entryOf = (staffId: string): StoredForOther => {
    if (!byOwner.has(staffId)) byOwner.set(staffId, { staffId, replies: 0, notes: 0, drafts: 0 })
    return byOwner.get(staffId)!
  }
  for (const name of itemNames(DRAFT_PREFIX)) entryOf(decodeURIComponent(name.slice(DRAFT_PREFIX.length).split('/')[0]!)).drafts += 1
  for (const [staffId, counts] of countKeptTexts()) Object.assign(entryOf(staffId), counts)
  byOwner.delete(myId)
  return [...byOwner.values()]
}
