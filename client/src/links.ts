/** Addresses of files: asked for together, and kept until shortly before they end. In memory only. */

import { ChatError } from './errors.js'

/** Milliseconds before its end at which an address is not given out any more. */
const MARGIN = 30_000
/** Milliseconds: the longest time for which an address is used. A machine's clock may be wrong. */
const LONGEST = 300_000
/** Ids of one request: the daemon's limit. */
const MAX_IDS = 100

/** The daemon's answer for one file. */
export interface FoundLink {
  url?: string
  expiresAt?: string
  code?: string
}

export interface KeptLink {
  url: string
  /** Milliseconds since 1970, as `now` has it: from then on it is asked for again. */
  until: number
}

/** `read` asks the daemon for addresses; it raises ChatError. `now` is the daemon's time, as well as it is known. */
export function createLinks(read: (ids: string[], variant: string) => Promise<Record<string, FoundLink>>, now: () => number = Date.now) {
  const links = new Map<string, KeptLink>()
  const wanted = new Map<string, { ids: Set<string>; answer: Promise<Record<string, FoundLink>> }>()
  const nameOf = (id: string, variant: string): string => `${id} ${variant}`

  const ask = (id: string, variant: string): Promise<Record<string, FoundLink>> => {
    let batch = wanted.get(variant)
    if (!batch || batch.ids.size === MAX_IDS) {
      const ids = new Set<string>()
      const answer = Promise.resolve().then(() => {
        if (wanted.get(variant)?.ids === ids) wanted.delete(variant)
        return read([...ids], variant)
      })
      wanted.set(variant, (batch = { ids, answer }))
    }
    batch.ids.add(id)
    return batch.answer
  }

  return {
    /** The address of a file. Raises ChatError; with status 404 there is none. */
    async get(id: string, variant: string): Promise<KeptLink> {
      const known = links.get(nameOf(id, variant))
      if (known && known.until > now()) return known
      const { url, expiresAt = '', code = 'attachment_not_found' } = (await ask(id, variant))[id] ?? {}
      if (!url) throw new ChatError(code, 'This file cannot be fetched.', 404)
      const link = { url, until: Math.min(Date.parse(expiresAt), now() + LONGEST) - MARGIN }
      links.set(nameOf(id, variant), link)
      return link
    },
    /** An address did not work: the next `get` asks for another one. */
    forget: (id: string, variant: string): boolean => links.delete(nameOf(id, variant)),
  }
}
