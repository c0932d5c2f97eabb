/** What this tab's storage has of unsent replies and notes: a name for each text, which begins with that of its author. */

import { getItem, itemNames, parseJson, setItem } from './storage'
import type { ChosenFile } from './uploads'

/** The beginning of each name; then follow the author and the text's id (see client/src/outbox.ts). */
export const KEPT_TEXTS = 'gre.unsent.'

/** What the console keeps with a text of the client's outbox. */
export interface KeptText {
  sessionId: string
  data: {
    /** The player's name, for notices about a session that is not loaded. */
    playerName: string
    /** When it was written, in milliseconds since 1970, by the server's clock. */
    at: number
    files: readonly ChosenFile[]
  }
}

/** The author of a text, by staff id, as names have it: it contains no `|`. */
export const authorKey = (staffId: string): string => encodeURIComponent(staffId)

/** The number of kept texts by staff id: replies and notes. Those without an author are offered to whoever is here. */
export function countKeptTexts(): Map<string, { replies: number; notes: number }> {
  const counts = new Map<string, { replies: number; notes: number }>()
  for (const name of itemNames(KEPT_TEXTS)) {
    const staffId = decodeURIComponent(name.slice(KEPT_TEXTS.length).split('|')[0]!)
    if (!staffId) continue
    const count = counts.get(staffId) ?? { replies: 0, notes: 0 }
    count[parseJson<{ note?: boolean }>(getItem(name))?.note ? 'notes' : 'replies'] += 1
    counts.set(staffId, count)
  }
  return counts
}

/** A text as versions of the console before this one have kept it: all of an author under one name, by session. */
interface EarlierText {
  id: string
  text: string
  playerName: string
  createdAt: number
  state: 'sending' | 'failed'
  error: string
  transient: boolean
  afterSeq?: number
  templateId?: string
  files?: readonly ChosenFile[]
}

/** Take over what an earlier version has kept in this tab, so that a text survives the update of the page. What cannot be read is left alone. */
export function importEarlierTexts(): void {
  for (const prefix of ['gre.replies.', 'gre.notes.']) {
    for (const name of itemNames(prefix)) {
      const texts = earlierTexts(name, prefix)
      if (!texts) continue
      // First, since a full storage has no room for both.
      setItem(name, null)
      for (const [key, text] of texts) setItem(key, text)
    }
  }
}

/** The texts under an earlier name, by their names now; undefined if they cannot be read. */
function earlierTexts(name: string, prefix: string): [string, string][] | undefined {
  const owner = name.slice(prefix.length)
  try {
    return Object.entries(JSON.parse(getItem(name)!) as Record<string, EarlierText[]>).flatMap(([sessionId, texts]) => {
      let last = 0
      return texts.map((earlier): [string, string] => {
        // The order of writing is that of the times.
        last = Math.max(last + 1, earlier.createdAt)
        const text = converted(earlier, sessionId, last)
        return [`${KEPT_TEXTS}${owner}|${earlier.id}`, JSON.stringify({ ...text, owner, ...(prefix === 'gre.notes.' && { note: true }) })]
      })
    })
  } catch {
    return undefined
  }
}

function converted(earlier: EarlierText, sessionId: string, at: number): object {
  const { id, text, playerName, state, error, transient, afterSeq, templateId, files = [] } = earlier
  const isRefused = state === 'failed' && !transient
  return {
    id, sessionId, text, afterSeq, templateId,
    files: files.map((file) => file.id),
    createdAt: new Date(at).toISOString(),
    state: isRefused ? 'refused' : 'waiting',
    failures: 0,
    ...(isRefused && { refusedWith: ['unknown', error, 400] }),
    data: { playerName, at: earlier.createdAt, files },
  }
}
