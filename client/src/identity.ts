/** Who the person is: tokens from the page, and the name under which a person's texts are kept. */

import type { Person } from './api.js'
import type { Me } from './protocol.js'
import { unreachable } from './errors.js'
import { keep } from './store.js'
import { exactJson } from './util.js'

/** Milliseconds in which the page has to return a token. */
const TOKEN_WITHIN = 30_000

const PERSON = ['role', 'playerId', 'staffId', 'displayName', 'chatEnabled', 'ratingEnabled'] as const

/** What a frame or GET /api/gre-chat/me says of a person. */
export type GivenPerson = Person | (Omit<Me, 'ratingEnabled'> & Pick<Person, 'ratingEnabled'>)

/** What is known of a person, and is said now. The same object if that is nothing new. */
export const mergePerson = (known: Person | undefined, given: GivenPerson): Person =>
  keep<Partial<Person>>(known, Object.fromEntries(PERSON.map((name) => [name, given[name] ?? known?.[name]]))) as Person

export const keyOf = ({ playerId, staffId }: Pick<GivenPerson, 'playerId' | 'staffId'>): string => (staffId == null ? `player:${playerId}` : `staff:${staffId}`)

interface Claims {
  sub?: string
  app_metadata?: Record<string, unknown>
}

/** The person whom a token names, by what the server reads of it; undefined if it is no JWT, or names nobody. */
export function nameIn(token: string): string | undefined {
  try {
    const { sub, app_metadata: { player_id, staff_id } = {} } = exactJson(atob(token.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'))) as Claims
    const names = [sub, player_id, staff_id]
    if (names.some(Boolean)) return JSON.stringify(names)
  } catch {
    // No JWT.
  }
  return undefined
}

/** Ask the page for a token; calls at the same time share an answer. Raises ChatError `unreachable` if the page cannot say. */
export function createTokens(getToken: (refused: boolean) => string | null | Promise<string | null>) {
  const pending = new Map<boolean, Promise<string | null>>()

  const ask = async (refused: boolean): Promise<string | null> => {
    let timer
    // Not before the caller has noted this call, which a page that throws would end at once.
    await null
    try {
      const late = new Promise<never>((_, reject) => (timer = setTimeout(reject, TOKEN_WITHIN)))
      return (await Promise.race([getToken(refused), late])) || null
    } catch {
      throw unreachable()
    } finally {
      clearTimeout(timer)
      pending.delete(refused)
    }
  }

  return (refused: boolean): Promise<string | null> => {
    // A renewal in progress is also the best answer to who asks for any token.
    const shared = pending.get(true) ?? pending.get(refused)
    if (shared) return shared
    const asked = ask(refused)
    pending.set(refused, asked)
    return asked
  }
}
