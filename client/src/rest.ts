/** Calls of the daemon's REST API with the person's token. */

import { ChatError, signedOut, unreachable } from './errors.js'
import type { Transport } from './transport.js'
import { exactJson } from './util.js'

/** Milliseconds that a call may take. */
const TIMEOUT = 20_000

export interface Answer<T> {
  /** Undefined for 304: nothing changed since `etag`. */
  data: T
  headers: Headers
  /** The token with which it was read. */
  token: string
}

interface Refusal {
  code?: string
  error?: string
  details?: Record<string, unknown>
}

export interface CallOptions {
  etag?: string | null | undefined
  /** The person in whose name the call is made: with a token of somebody else it fails, and nothing is sent. */
  owner?: string | undefined
  /** A token to be used instead of the page's. */
  token?: string | null
  /** True for the second try, after a 401. */
  refused?: boolean
}

export interface Rest {
  /** Raises ChatError. After a 401 it is tried once more, with a renewed token. */
  <T>(method: string, path: string, body?: object, options?: CallOptions): Promise<Answer<T>>
}

/** `getToken` returns the token for a call; null: nobody is signed in. `calls` are those that are running: one that is aborted fails with `unreachable`. One that reads is made again if it is removed before. */
export function createRest(url: string, getToken: (options: CallOptions) => Promise<string | null>, calls: Set<AbortController>, transport?: Transport): Rest {
  const call: Rest = async (method, path, body, options = {}) => {
    const token = await getToken(options)
    if (!token) throw signedOut()
    let response
    let text
    // Not AbortSignal.timeout: Node.js 20 forgets a signal that only AbortSignal.any knows, and the call would wait for ever.
    const ending = new AbortController()
    const timer = setTimeout(() => ending.abort(), TIMEOUT)
    calls.add(ending)
    try {
      response = await (transport?.fetch ?? fetch)(url + path, {
        method,
        headers: {
          Authorization: `Bearer ${token}`,
          ...(body && { 'Content-Type': 'application/json' }),
          ...(options.etag && { 'If-None-Match': options.etag }),
        },
        // Undefined without a body, which the type does not have.
        body: (body && JSON.stringify(body)) as string,
        cache: 'no-store',
        credentials: 'omit',
        signal: ending.signal,
      })
      text = await response.text()
    } catch {
      if (method === 'GET' && !calls.has(ending)) return call(method, path, body, options)
      throw unreachable()
    } finally {
      clearTimeout(timer)
      calls.delete(ending)
    }
    const { status, headers, ok } = response
    if (status === 401 && !options.refused) return call(method, path, body, { ...options, refused: true })
    let data
    try {
      data = exactJson(text) as Refusal | null
    } catch {
      // A page of something in between, or nothing.
    }
    if (status === 304 || (ok && data)) return { data, headers, token } as never
    // Of what is not the daemon's answer, only the status says something.
    throw new ChatError(data?.code ?? 'unreachable', data?.error ?? 'The server does not answer.', ok ? 0 : status, +headers.get('Retry-After')! || undefined, data?.details)
  }
  return call
}
