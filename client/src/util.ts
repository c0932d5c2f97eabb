/** Small helpers without state. */

import { type ChatError, unreachable } from './errors.js'

export type Timer = ReturnType<typeof setTimeout> | undefined

export type Timers = ReturnType<typeof createTimers>

/** Timers by name. Starting one ends another of its name. */
export function createTimers() {
  const running = new Map<string, Timer>()
  const end = (name: string): void => {
    clearTimeout(running.get(name))
    running.delete(name)
  }
  return {
    has: (name: string): boolean => running.has(name),
    end,
    start(name: string, ms: number, then: () => void): void {
      end(name)
      const act = (): void => {
        running.delete(name)
        then()
      }
      // A time that does not fit into 31 bits would be none.
      running.set(name, setTimeout(act, Math.min(ms, 1e9)))
    },
    clear: (): void => [...running.keys()].forEach(end),
  }
}

/** A random part of a delay, between a half and all of it, so that pages do not come back together. */
export const jitter = (ms: number): number => ms * (0.5 + Math.random() / 2)

/** The delay before the try that follows `failures` failures, in milliseconds. */
export const backoff = (failures: number, max = 15_000): number => jitter(Math.min(max, 500 * 2 ** (failures - 1)))

/** A random UUID (version 4, 120 random bits). `crypto.randomUUID` is missing on pages that come over plain HTTP. */
export const uuid = (): string =>
  'xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx'.replace(/x/g, () => (crypto.getRandomValues(new Uint8Array(1))[0]! & 15).toString(16))

/** Parse JSON; players' ids of 16 digits and more stay text, since numbers beyond 2^53 are not exact. */
export const exactJson = (text: string): unknown => JSON.parse(text.replace(/("player_?[iI]d"\s*:\s*)(\d{16,})/g, '$1"$2"'))

/** `path?name=value…`, without what is undefined. */
export const withQuery = (path: string, query: object): string => `${path}?${new URLSearchParams(JSON.parse(JSON.stringify(query)))}`

/** Milliseconds after which a part that could not be loaded can be asked for again. */
const LOAD_AGAIN = 3000

/**
 * Load a part of the client once. Raises ChatError `unreachable` if it cannot be fetched, as on a page that is older than the last
 * deployment. `note` is called with this error, and without one when the next call tries again.
 */
export function loadOnce<T>(load: () => Promise<T>, note: (error?: ChatError) => void): () => Promise<T> {
  let loaded: Promise<T> | undefined
  return () =>
    (loaded ??= load().catch(() => {
      const error = unreachable()
      note(error)
      setTimeout(() => {
        loaded = undefined
        note()
      }, LOAD_AGAIN)
      throw error
    }))
}
