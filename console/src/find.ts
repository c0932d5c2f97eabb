/** Which sessions a search finds: a player's number, or the beginnings of words of the name, whatever their accents. */

import type { Session } from './types'

export function finder(search: string): (session: Session) => boolean {
  const wanted = fold(search.trim())
  if (!wanted) return () => true
  const number = /^#?(\d+)$/.exec(wanted)?.[1]
  const words = wordsOf(wanted)
  return ({ player_id, player_name }) => {
    if (number !== undefined && String(player_id) === number) return true
    const name = fold(player_name ?? '')
    if (name.startsWith(wanted)) return true
    if (!words.length) return false
    const there = wordsOf(name)
    return words.every((word) => there.some((one) => one.startsWith(word)))
  }
}

function fold(text: string): string {
  return text.normalize('NFD').replace(/\p{M}/gu, '').toLowerCase()
}

function wordsOf(text: string): string[] {
  return text.split(/[^\p{L}\p{N}]+/u).filter(Boolean)
}
