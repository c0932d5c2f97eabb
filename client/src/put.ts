/** The bytes of one file on their way to Supabase Storage. */

import { ChatError } from './errors.js'
import { exactJson, type Timer } from './util.js'

/** Where the bytes go: signed by the daemon, for one file and a limited time. It is kept in memory only. */
export interface Address {
  url: string
  method: string
  headers: Record<string, string>
  expiresAt: string | null
}

/** Send a file; `onProgress` gets the share that was sent, from 0 to 1. Raises ChatError: with status 0 nothing is known of the upload. */
export type Put = (address: Address, file: Blob, onProgress: (share: number) => void, signal: AbortSignal) => Promise<void>

/** Milliseconds without progress, or without an answer after the last byte, after which an upload counts as interrupted. */
const STALLED = 45_000

export const interrupted = (): ChatError => new ChatError('upload_failed', 'The upload was interrupted.')

/** Storage has answered with a status that it does not take the file. */
export function storageRefusal(status: number): ChatError {
  if (status === 413) return new ChatError('file_too_large', 'The file is too large for this chat.', status)
  if (status === 403 || status === 415) return new ChatError('file_refused', 'Files of this type or size are not taken.', status)
  return new ChatError('upload_failed', 'The storage of the files does not take it at the moment.', status === 409 ? status : 503)
}

export const put: Put = async (address, file, onProgress, signal) => {
  if (signal.aborted) throw interrupted()
  const { status, text } = globalThis.XMLHttpRequest ? await putWithProgress(address, file, onProgress, signal) : await putByFetch(address, file, signal)
  if (status >= 200 && status < 300) return
  // Nearly all refusals of the storage have status 400: the body says why.
  let reason
  try {
    reason = Number((exactJson(text) as { statusCode?: string }).statusCode)
  } catch {
    // An answer of something in between.
  }
  throw storageRefusal(reason || status)
}

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
