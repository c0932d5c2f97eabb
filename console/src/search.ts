/** Search sessions by a player's id, or by the beginnings of words of the name, without regard to accents and case. */

import type { Session } from './types'

export function sessionMatcher(search: string): (session: Session) => boolean {
  const query = normalize(search.trim())
  if (!query) return () => true
  const number = /^#?(\d+)$/.exec(query)?.[1]
  const queryWords = splitWords(query)
  return ({ player_id, player_name }) => {
    if (number !== undefined && String(player_id) === number) return true
    const name = normalize(player_name ?? '')
    if (name.startsWith(query)) return true
    if (!queryWords.length) return false
    const nameWords = splitWords(name)
    return queryWords.every((word) => nameWords.some((nameWord) => nameWord.startsWith(word)))
  }
}

function normalize(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
}

function splitWords(text: string): string[] {
  return text.split(/[^\p{L}\p{N}]+/u).filter(Boolean)
}
