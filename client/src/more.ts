/**
 * What is loaded when it is first used: files, who types and who is there, the opening hours, read marks, ratings, the end of a session.
 *
 * Files: their bytes go from the page to the storage, at an address that the daemon signs (docs/files.md). A file keeps its id
 * through all tries, so that a repeat makes no copy.
 */

import type { UploadOptions } from './api.js'
import type { Core } from './core.js'
import { ChatError } from './errors.js'
import { createLinks, type FoundLink } from './links.js'
import { createMarks } from './marks.js'
import type { ServerFrame, Session, StaffStatus } from './protocol.js'
import { createOpening } from './opening.js'
import { put } from './put.js'
import type { Sessions } from './sessions.js'
import { keep } from './store.js'
import type { Timeline } from './timeline.js'
import { createTyping } from './typing.js'
import { createUpload, type Ending, type RunningUpload, type UploadServer, type UploadState } from './upload.js'

const PATH = '/api/gre-chat/attachments'
const ENDED = 'The upload was ended: the chat was closed, or another person has signed in.'
/** Not inside the function of an upload: what ends it must not keep its bytes. */
const endWith = ([, reject]: Ending) => (): void => reject(new ChatError('upload_ended', ENDED, 409))

export type More = ReturnType<typeof createMore>

/** Promises are rejected with a ChatError. */
export function createMore(core: Core, sessions: Sessions, timelines: Map<string, Timeline>, apply: (row: Session) => void) {
  const { rest, me, author, isStaff, link, changed } = core
  const call = async <T>(method: string, path: string, body?: object, owner?: string): Promise<T> => (await rest<T>(method, PATH + path, body, { owner })).data
  /** The calls of one upload, all in the name of the person who is signed in with the first one. */
  const uploadServer = (): UploadServer => {
    let owner = author()
    const callAs = <T>(method: string, path: string, body?: object): Promise<T> => call(method, path, body, (owner ??= author()))
    return {
      begin: (file) => callAs('POST', '', file),
      read: (id) => callAs('GET', `/${id}`),
      drop: (id) => callAs('DELETE', `/${id}`),
      put,
      now: Date.now,
    }
  }
  /** What ends the person's uploads; not the uploads themselves, which would keep the bytes of all that was sent. */
  const uploads = new Set<AbortController>()
  const newLinks = () => createLinks(async (ids, variant) => (await call<{ urls: Record<string, FoundLink> }>('POST', '/urls', { ids, variant })).urls)
  let links = newLinks()
  const marks = createMarks(core, sessions, timelines)
  const typing = createTyping((isTyping, sessionId) => link({ type: 'typing', typing: isTyping, sessionId: sessionId! }), changed)
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
    /** What is of one person is not given to another, and not uploaded in another's name. */
    clear(): void {
      for (const own of uploads) own.abort()
      uploads.clear()
      links = newLinks()
      marks.clear()
      typing.clear()
      present.clear()
      opening.clear()
    },
    /** Make the upload of a file, which `run` starts. `set` changes the state that the page sees. `isOwn` is false if the person has changed since the page called. */
    upload(id: string, file: Blob & { name?: string }, { name = file.name || 'file', ...options }: UploadOptions, set: (fields: UploadState) => void, ending: Ending, isOwn: boolean): RunningUpload {
      const own = createUpload(uploadServer(), { ...options, id, name, type: file.type || 'application/octet-stream', bytes: file.size }, file, set, ending)
      own.controller.signal.onabort = endWith(ending)
      if (isOwn) uploads.add(own.controller)
      else own.stop()
      return own
    },
    /** An address of a file. */
    url: async (id: string, variant = 'file'): Promise<string> => (await links.get(id, variant)).url,
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
