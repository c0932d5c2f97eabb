/**
 * What is loaded when it is first used: files, who types and who is there, the opening hours, read marks, ratings, the end of a session.
 *
 * Files: their bytes go from the page to the storage, at an address that the daemon signs (docs/files.md). A file keeps its id
 * through all tries, so that a repeat makes no copy.
 */

import type { Upload, UploadOptions } from './api.js'
import { ChatError } from './errors.js'
import type { Attachment, ServerFrame, Session, StaffStatus } from './protocol.js'
import type { Core } from './core.js'
import { createMarks } from './marks.js'
import type { Rest } from './rest.js'
import type { Sessions } from './sessions.js'
import { keep } from './store.js'
import type { Timeline } from './timeline.js'
import { createOpening } from './opening.js'
import { createTyping } from './typing.js'
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

/** Upload a file, in as many tries as it takes. `set` changes the state that the page sees. */
function startUpload(rest: Rest, id: string, file: Blob & { name?: string }, options: UploadOptions, set: (fields: Partial<Upload>) => void) {
  const { sessionId, playerId, name = file.name || 'file', alt } = options
  const controller = new AbortController()
  let running = false
  let resolve!: (file: Attachment) => void
  let reject!: (error: ChatError) => void
  const done = new Promise<Attachment>((yes, no) => ([resolve, reject] = [yes, no]))

  const attempt = async (): Promise<Attachment> => {
    const type = file.type || 'application/octet-stream'
    const { data } = await rest<{ attachment: Attachment; upload: Address | null }>('POST', PATH, { id, name, type, bytes: file.size, alt, sessionId, playerId })
    const { attachment, upload } = data
    // No address: an earlier try has stored the bytes.
    if (upload && !controller.signal.aborted) await put(upload, file, (progress) => set({ progress }), controller.signal)
    return attachment.state === 'awaited' ? { ...attachment, state: 'stored' } : attachment
  }

  const run = async (): Promise<void> => {
    if (running) return
    running = true
    set({ state: 'uploading', progress: 0, error: undefined })
    for (let tries = 1; !controller.signal.aborted; tries += 1) {
      try {
        const stored = await attempt()
        if (controller.signal.aborted) return
        set({ state: 'stored', progress: 1 })
        return resolve(stored)
      } catch (reason) {
        if (controller.signal.aborted) return
        const error = reason as ChatError
        const final = !error.transient || LASTING.includes(error.code)
        if (final || tries === MAX_TRIES) {
          set({ state: 'failed', error })
          if (final) reject(error)
          break
        }
        await new Promise((later) => setTimeout(later, error.retryAfter ? error.retryAfter * 1000 : backoff(tries + 1)))
      }
    }
    running = false
  }

  const cancel = (): void => {
    controller.abort()
    reject(new ChatError('cancelled', 'The upload was cancelled.', 400))
    // If this fails, the server deletes the file after a day.
    rest('DELETE', `${PATH}/${id}`).catch(() => {})
  }

  void run()
  return { done, retry: run, cancel }
}

interface Link {
  url?: string
  expiresAt?: string
  code?: string
}

/** Addresses of files: asked for together, and kept until shortly before they end. */
function createLinks(rest: Rest) {
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

export type More = ReturnType<typeof createMore>

/** Promises are rejected with a ChatError. */
export function createMore(core: Core, sessions: Sessions, timelines: Map<string, Timeline>, apply: (row: Session) => void) {
  const { rest, me, isStaff, link, changed } = core
  const links = new Map<string, ReturnType<typeof createLinks>>()
  const marks = createMarks(core, sessions, timelines)
  const typing = createTyping((isTyping, sessionId) => link({ type: 'typing', typing: isTyping, sessionId }), changed)
  const present = new Map<string, StaffStatus>()
  const opening = createOpening(core, present)

  const changing = async (method: string, path: string, body?: object): Promise<Session> => {
    const { session } = (await rest<{ session: Session }>(method, path, body)).data
    // Null: no session was open.
    if (session) apply(session)
    return session
  }

  return {
    marks,
    typing,
    /** Somebody types, or is there. */
    frame(frame: ServerFrame): void {
      if (frame.type === 'typing') typing.apply(frame)
      if (frame.type !== 'staff_status') return
      present.set(frame.staffId, keep(present.get(frame.staffId), frame))
      changed()
    },
    desk: opening.read,
    present: (): StaffStatus[] => [...present.values()].filter(({ status }) => status !== 'offline'),
    clear(): void {
      marks.clear()
      typing.clear()
      present.clear()
      opening.clear()
    },
    upload: (id: string, file: Blob & { name?: string }, options: UploadOptions, set: (fields: Partial<Upload>) => void) => startUpload(rest, id, file, options, set),
    /** An address of a file; those of one person are not given to another. */
    async url(id: string, variant = 'file'): Promise<string> {
      const key = JSON.stringify([me()?.playerId, me()?.staffId])
      if (!links.has(key)) {
        links.clear()
        links.set(key, createLinks(rest))
      }
      return links.get(key)!(id, variant)
    },
    /** Read the row of a player's latest session. */
    async readRow(): Promise<void> {
      const { data } = await rest<{ conversations: (Session & { chat_messages?: unknown })[] }>('GET', `/api/chat-history/${me()?.playerId}?limit=1`)
      for (const { chat_messages: _, ...row } of data.conversations) apply(row)
    },
    rate: (sessionId: string, score: number, comment?: string): Promise<Session> => changing('POST', '/api/gre-chat/rate', { sessionId, score, comment }),
    async closeSession(sessionId?: string): Promise<void> {
      if (isStaff()) await changing('PUT', `/api/gre-admin/session/${sessionId}/status`, { status: 'closed' })
      else await changing('POST', `/api/gre-chat/close-session/${me()?.playerId}`)
    },
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
