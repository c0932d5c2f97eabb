/**
 * Files: their bytes go from the page to the storage, at an address that the daemon signs (docs/files.md). A file keeps its id
 * through all tries, so that a repeat makes no copy.
 */

import type { UploadOptions } from './api.js'
import { ChatError } from './errors.js'
import type { Attachment } from './protocol.js'
import type { Rest } from './rest.js'
import { backoff, exactJson, type Timer } from './util.js'

interface Address {
  url: string
  method: string
  headers: Record<string, string>
}

/** Milliseconds without progress after which an upload counts as interrupted. */
const STALLED = 45_000
/** Tries in a row before the upload counts as failed. */
const MAX_TRIES = 6
/** Milliseconds before its end at which an address is not given out any more. */
const LINK_MARGIN = 30_000
/** Ids of one request. */
const MAX_IDS = 100
/** Refusals with the status of a passing one that another try soon does not change. */
const LASTING: readonly string[] = ['file_quota', 'too_many_files', 'files_off']
const PATH = '/api/gre-chat/attachments'

/** Upload a file, in as many tries as it takes. Raises ChatError: a transient one if it is tried again when the person wants it. */
export async function uploadFile(rest: Rest, id: string, file: Blob & { name?: string }, options: UploadOptions, onProgress: (share: number) => void, signal: AbortSignal): Promise<Attachment> {
  const { sessionId, playerId, name = file.name || 'file', alt } = options
  const type = file.type || 'application/octet-stream'
  for (let tries = 1; ; tries += 1) {
    try {
      const { data } = await rest<{ attachment: Attachment; upload: Address | null }>('POST', PATH, { id, name, type, bytes: file.size, alt, sessionId, playerId })
      const { attachment, upload } = data
      // No address: an earlier try has stored the bytes.
      if (upload) await put(upload, file, onProgress, signal)
      return attachment.state === 'awaited' ? { ...attachment, state: 'stored' } : attachment
    } catch (reason) {
      const error = reason as ChatError
      if (signal.aborted) throw error
      if (LASTING.includes(error.code)) throw new ChatError(error.code, error.message, 400, error.retryAfter)
      if (!error.transient || tries === MAX_TRIES) throw error
      await new Promise((later) => setTimeout(later, error.retryAfter ? error.retryAfter * 1000 : backoff(tries + 1)))
    }
  }
}

interface Link {
  url?: string
  expiresAt?: string
  code?: string
}

/** Addresses of files: asked for together, and kept until shortly before they end. */
export function createLinks(rest: Rest) {
  const links = new Map<string, { url: string; until: number }>()
  const wanted = new Map<string, { ids: Set<string>; answer: Promise<Record<string, Link>> }>()

  const ask = (id: string, variant: string): Promise<Record<string, Link>> => {
    let batch = wanted.get(variant)
    if (!batch || batch.ids.size === MAX_IDS) {
      const ids = new Set<string>()
      const answer = Promise.resolve().then(async () => {
        if (wanted.get(variant)?.ids === ids) wanted.delete(variant)
        return (await rest<{ urls: Record<string, Link> }>('POST', `${PATH}/urls`, { ids: [...ids], variant })).data.urls
      })
      wanted.set(variant, (batch = { ids, answer }))
    }
    batch.ids.add(id)
    return batch.answer
  }

  return async (id: string, variant: string): Promise<string> => {
    const name = `${id} ${variant}`
    const known = links.get(name)
    if (known && known.until > Date.now()) return known.url
    const { url, expiresAt = '', code = 'attachment_not_found' } = (await ask(id, variant))[id] ?? {}
    if (!url) throw new ChatError(code, 'The file cannot be fetched.', 404)
    // This machine's clock may be wrong: never longer than the server's five minutes.
    links.set(name, { url, until: Math.min(Date.parse(expiresAt), Date.now() + 300_000) - LINK_MARGIN })
    return url
  }
}

/** Raises ChatError: transient if nothing is known, or another address helps. */
async function put(address: Address, file: Blob, onProgress: (share: number) => void, signal: AbortSignal): Promise<void> {
  const { status, text } = globalThis.XMLHttpRequest ? await putWithProgress(address, file, onProgress, signal) : await putByFetch(address, file, signal)
  if (status >= 200 && status < 300) return
  // The storage says in the body what it refuses; nearly all its refusals have status 400.
  let code = String(status)
  try {
    code = String((exactJson(text) as { statusCode?: string }).statusCode ?? code)
  } catch {
    // An answer of something in between.
  }
  if (code === '413') throw new ChatError('file_too_large', 'The file is too large.', 413)
  if (code === '415' || code === '403') throw new ChatError('file_refused', 'Files of this type or size are not taken.', Number(code))
  throw new ChatError('upload_failed', 'The file could not be stored.', 503)
}

const interrupted = (): ChatError => new ChatError('upload_failed', 'The upload was interrupted.', 503)

/** `fetch` does not report the progress of an upload. */
function putWithProgress({ url, method, headers }: Address, file: Blob, onProgress: (share: number) => void, signal: AbortSignal) {
  return new Promise<{ status: number; text: string }>((resolve, reject) => {
    const request = new XMLHttpRequest()
    let timer: Timer
    const abort = (): void => request.abort()
    const watch = (): void => {
      clearTimeout(timer)
      timer = setTimeout(abort, STALLED)
    }
    request.upload.onprogress = ({ loaded, total }) => {
      watch()
      onProgress(total ? loaded / total : 0)
    }
    request.onload = () => resolve({ status: request.status, text: request.responseText })
    request.onerror = request.onabort = () => reject(interrupted())
    request.onloadend = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
    signal.addEventListener('abort', abort)
    request.open(method, url)
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value)
    watch()
    request.send(file)
  })
}

async function putByFetch({ url, method, headers }: Address, file: Blob, signal: AbortSignal) {
  try {
    const response = await fetch(url, { method, headers, body: file, signal })
    return { status: response.status, text: await response.text() }
  } catch {
    throw interrupted()
  }
}
