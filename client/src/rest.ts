/** Calls of the daemon's REST API with the person's token. */

import { ChatError } from './errors.js'
import { exactJson, type Timer } from './util.js'

/** Milliseconds. */
const TIMEOUT = 20_000

export interface Answer<T> {
  data: T
  headers: Headers
  /** True for 304: nothing changed since `etag`. */
  unchanged: boolean
}

export interface CallOptions {
  etag?: string | undefined
  /** The person in whose name the call is made: with a token of somebody else it fails, and nothing is sent. */
  owner?: string | undefined
}

export interface Rest {
  /** Raises ChatError. After a 401 it is tried once more, with a renewed token. */
  <T>(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Answer<T>>
}

/** `token` returns the token for a call; null: nobody is signed in. `signal` ends all calls. */
export function createRest(
  url: string,
  token: (refused: boolean, owner?: string) => Promise<string | null>,
  signal: AbortSignal,
): Rest {
  const attempt = async <T>(refused: boolean, method: string, path: string, body: unknown, { etag, owner }: CallOptions): Promise<Answer<T>> => {
    const authorization = await token(refused, owner)
    if (authorization === null) throw new ChatError('signed_out', 'You are signed out.')
    const headers: Record<string, string> = { Authorization: `Bearer ${authorization}` }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    if (etag) headers['If-None-Match'] = etag
    const controller = new AbortController()
    const abort = (): void => controller.abort()
    const timer: Timer = setTimeout(abort, TIMEOUT)
    signal.addEventListener('abort', abort)
    let response: Response
    let data: unknown
    try {
      if (signal.aborted) abort()
      const init: RequestInit = { method, headers, cache: 'no-store', credentials: 'omit', signal: controller.signal }
      if (body !== undefined) init.body = JSON.stringify(body)
      response = await fetch(url + path, init)
      data = response.status === 304 ? undefined : exactJson(await response.text())
    } catch {
      throw new ChatError('unreachable', 'The server does not answer.')
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
    if (response.ok || response.status === 304) return { data: data as T, headers: response.headers, unchanged: response.status === 304 }
    const { code, error, details } = (data ?? {}) as { code?: string; error?: string; details?: Record<string, unknown> }
    const after = Number(response.headers.get('Retry-After')) || undefined
    throw new ChatError(code ?? 'unknown', error ?? 'The server refused.', response.status, after, details)
  }

  return async (method, path, body, options = {}) => {
    try {
      return await attempt(false, method, path, body, options)
    } catch (error) {
      if ((error as ChatError).status !== 401) throw error
      return attempt(true, method, path, body, options)
    }
  }
}
