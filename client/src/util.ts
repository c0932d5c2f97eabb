/** Small helpers without state. */

import { ChatError } from './errors.js'

export type Timer = ReturnType<typeof setTimeout> | undefined

/** A random part of a delay, between a half and all of it, so that pages do not come back together. */
export const jitter = (ms: number): number => ms * (0.5 + Math.random() / 2)

/** The delay before the try that follows `failures` failures, in milliseconds. */
export const backoff = (failures: number, max = 15_000): number => jitter(Math.min(max, 500 * 2 ** (failures - 1)))

/** A random UUID (version 4). `crypto.randomUUID` is missing on pages that come over plain HTTP. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = (bytes[6]! & 15) | 64
  bytes[8] = (bytes[8]! & 63) | 128
  return Array.from(bytes, (byte, index) => ([4, 6, 8, 10].includes(index) ? '-' : '') + byte.toString(16).padStart(2, '0')).join('')
}

/** Parse JSON; players' ids of 16 digits and more stay text, since numbers beyond 2^53 are not exact. */
export const exactJson = (text: string): unknown => JSON.parse(text.replace(/("player_?[iI]d"\s*:\s*)(\d{16,})/g, '$1"$2"'))

/** `path?name=value…`, without what is undefined. */
export function withQuery(path: string, query: Record<string, string | number | undefined>): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined)
  return given.length ? `${path}?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : path
}

/** Load a part of the client once. Raises ChatError `unreachable` if it cannot be fetched; the next call tries again. */
export function later<T>(load: () => Promise<T>): () => Promise<T> {
  let loaded: Promise<T> | undefined
  return () =>
    (loaded ??= load().catch(() => {
      loaded = undefined
      throw new ChatError('unreachable', 'The server does not answer.')
    }))
}
