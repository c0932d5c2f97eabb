/** One upload to Supabase Storage. XMLHttpRequest, since `fetch` does not report the progress of an upload. */

import { parseJson } from './storage'

/** Where the bytes go: signed by the server, for one file and a limited time. It is kept in memory only. */
export interface UploadAddress {
  url: string
  method: string
  headers: Record<string, string>
  expiresAt: string | null
}

/** Send a file. `onProgress` gets the share that was sent, from 0 to 1. */
export type Transport = (address: UploadAddress, file: Blob, onProgress: (share: number) => void, signal: AbortSignal) => Promise<void>

/** Storage has answered that it does not take the file. Nearly all its answers have HTTP status 400: the body says why. */
export class StorageRefusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
  ) {
    super(`Storage answered ${status} ${code}`)
  }
}

/** Milliseconds without progress, or without an answer after the last byte, after which an upload counts as interrupted. */
const STALL_TIMEOUT = 45_000

/** Raises StorageRefusal; any other error means that nothing is known of the upload. */
export const upload: Transport = (address, file, onProgress, signal) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    let stalled: ReturnType<typeof setTimeout> | undefined
    const watch = (): void => {
      clearTimeout(stalled)
      stalled = setTimeout(() => request.abort(), STALL_TIMEOUT)
    }
    const abort = (): void => request.abort()
    request.upload.onprogress = ({ loaded, total }) => {
      watch()
      onProgress(total ? loaded / total : 0)
    }
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) return resolve()
      const { statusCode, error, code } = parseJson<Record<string, string>>(request.responseText) ?? {}
      reject(new StorageRefusal(Number(statusCode) || request.status, code ?? error ?? ''))
    }
    request.onerror = request.onabort = () => reject(new Error('interrupted'))
    request.onloadend = () => {
      clearTimeout(stalled)
      signal.removeEventListener('abort', abort)
    }
    if (signal.aborted) return reject(new Error('aborted'))
    signal.addEventListener('abort', abort)
    request.open(address.method, address.url)
    for (const [name, value] of Object.entries(address.headers)) request.setRequestHeader(name, value)
    watch()
    request.send(file)
  })
