/**
 * The upload of one file: its bytes go from the page to the storage, at an address that the daemon signs (docs/files.md).
 *
 * A file keeps its id through all tries, so that a repeat makes no copy. After an upload without an answer the daemon is asked
 * whether the bytes are there before they are sent again, and an address is used as long as it is valid: asking for one counts.
 */

import type { Upload } from './api.js'
import { ChatError } from './errors.js'
import type { Attachment } from './protocol.js'
import type { Address, Put } from './put.js'
import { backoff } from './util.js'

/** What the daemon is told of a file. */
export interface FileInfo {
  id: string
  name: string
  type: string
  bytes: number
  alt?: string | undefined
  sessionId?: string | undefined
  playerId?: string | number | undefined
}

/** The calls that an upload makes. They raise a ChatError. */
export interface UploadServer {
  /** Announce a file, or its new alt text. No address: the bytes are there. */
  begin(file: FileInfo): Promise<{ attachment: Attachment; upload: Address | null }>
  read(id: string): Promise<{ attachment: Attachment }>
  drop(id: string): Promise<unknown>
  put: Put
  /** The daemon's time, as well as it is known, in milliseconds since 1970. */
  now(): number
}

export type UploadState = Partial<Pick<Upload, 'state' | 'progress' | 'error'>>
export type RunningUpload = ReturnType<typeof createUpload>

/** Bytes: the daemon's limit. */
export const MAX_BYTES = 26_214_400
/** Tries in a row before the upload counts as failed. */
const MAX_TRIES = 6
/** Milliseconds before its end at which an address is not used any more. */
const MARGIN = 10_000
/** Refusals with the status of a passing one that another try soon does not change. */
const LASTING: readonly string[] = ['file_quota', 'too_many_files', 'files_off']

const UNREADABLE = 'This file cannot be read: it was moved, changed or deleted, or it is a folder. Remove it and choose it again.'
const LOST = 'The upload was interrupted when the page was closed. Remove the file and choose it again.'

/** True if another try soon may succeed. */
export const isPassing = ({ transient, code }: Pick<ChatError, 'transient' | 'code'>): boolean => transient && !LASTING.includes(code)

/** Called with the file, once its bytes are stored, and with the error, if it fails finally or is cancelled. */
export type Ending = [(file: Attachment) => void, (error: ChatError) => void]

/**
 * Make an upload; `run` or `settle` starts it. `set` changes the state that the page sees: with `uploading` and an error it waits
 * for another try. Without `bytes` it is one of an earlier visit of the page, whose bytes the daemon may have.
 */
export function createUpload(server: UploadServer, file: FileInfo, bytes: Blob | undefined, set: (fields: UploadState) => void, [resolve, reject]: Ending = [() => {}, () => {}]) {
  const controller = new AbortController()
  const { signal } = controller
  const { id } = file
  let { alt } = file
  /** What the daemon has last said of it. */
  let known: Attachment | undefined
  let isStored = false
  let address: Address | undefined
  /** The alt text that the daemon has; undefined until the file is announced. */
  let announced: string | undefined
  /** True if an earlier try may have stored the bytes. */
  let unanswered = !bytes
  let attempting: Promise<void> | undefined
  /** Why the last attempt has failed. */
  let error: ChatError | undefined
  /** The tries that `run` still makes; undefined while it does not run. */
  let left: number | undefined
  let wake: (() => void) | undefined

  const isAnnounced = (): boolean => announced !== undefined && (alt === undefined || alt === announced)
  const isDone = (): boolean => isStored && isAnnounced()

  /** Announce the file. */
  const begin = async (): Promise<void> => {
    const wanted = alt
    const { attachment, upload } = await server.begin({ ...file, alt: wanted })
    known = attachment
    announced = wanted ?? attachment.alt ?? ''
    address = upload ?? undefined
    isStored ||= !upload
  }

  /** Ask whether the bytes are stored. */
  const check = async (): Promise<void> => {
    try {
      known = (await server.read(id)).attachment
      announced = known.alt ?? ''
      isStored = known.state !== 'awaited'
    } catch (reason) {
      if ((reason as ChatError).status !== 404) throw reason
    }
    unanswered = false
  }

  /** Send the bytes. `isReused` is true if the address is of an earlier try. */
  const send = async (blob: Blob, to: Address, isReused: boolean): Promise<void> => {
    unanswered = true
    try {
      await server.put(to, blob, (progress) => set({ progress }), signal)
    } catch (reason) {
      const { status, message } = reason as ChatError
      if (!status) throw signal.aborted || (await isReadable(blob)) ? reason : new ChatError('file_unreadable', UNREADABLE, 409)
      // The next try asks for another address: this one may have ended.
      address = undefined
      // An earlier try may have stored the bytes after all.
      if (status === 403 || status === 409) await check()
      unanswered = false
      if (isStored) return
      throw status === 409 || (isReused && status === 403) ? new ChatError('upload_failed', message, 503) : reason
    }
    isStored = true
  }

  /** Have the bytes stored and the alt text announced. */
  const store = async (): Promise<void> => {
    if (file.bytes > MAX_BYTES) throw new ChatError('file_too_large', 'The file is larger than 25 MB.', 413)
    if (!isStored && unanswered) await check()
    if (!isStored) {
      if (!bytes) throw new ChatError('upload_lost', LOST, 409)
      const isReused = isAnnounced() && address?.expiresAt != null && Date.parse(address.expiresAt) > server.now() + MARGIN
      if (!isReused) await begin()
      if (!isStored) await send(bytes, address!, isReused)
    }
    while (!isAnnounced()) await begin()
  }

  const attempt = async (): Promise<void> => {
    if (isDone() || signal.aborted) return
    error = undefined
    set({ state: 'uploading', progress: isStored ? 1 : 0, error })
    try {
      await store()
      if (signal.aborted) return
      set({ state: 'stored', progress: 1 })
      resolve({ ...known!, ...(known!.state === 'awaited' && { state: 'stored' }) })
    } catch (reason) {
      if (signal.aborted) return
      error = reason as ChatError
      const again = isPassing(error)
      set({ state: left! > 0 && again ? 'uploading' : 'failed', error })
      if (!again) reject(error)
    }
  }

  /** One attempt, which concurrent calls share. */
  const tryOnce = (): Promise<void> => (attempting ??= attempt().finally(() => (attempting = undefined)))

  /**
   * Try until it is stored, or several times; while it waits for another try, that is made at once. With an alt text: change it; the
   * daemon is told of it with the next try, and at once if the bytes are stored.
   */
  const run = async (text?: unknown): Promise<void> => {
    if (typeof text === 'string') {
      alt = text
      if (!isStored) return
    }
    if (left !== undefined) return void wake?.()
    for (left = MAX_TRIES - 1; !signal.aborted; left -= 1) {
      await tryOnce()
      if (error ? left <= 0 || !isPassing(error) : isDone()) break
      if (error) await pause(error.retryAfter ? error.retryAfter * 1000 : backoff(MAX_TRIES - left + 1))
    }
    left = undefined
  }

  const pause = (ms: number): Promise<void> =>
    new Promise((then) => {
      const timer = setTimeout(then, Math.min(ms, 1e9))
      wake = () => {
        clearTimeout(timer)
        then()
      }
    })

  /** End it, and leave what the daemon has of it. */
  const stop = (): void => {
    controller.abort()
    wake?.()
  }

  return {
    run,
    stop,
    /** Aborted at its end: `stop`, for who does not keep the file. */
    controller,
    /** Make one attempt, unless everything is stored. Raises ChatError: the upload's failure. */
    async settle(): Promise<void> {
      while (!isDone() && !signal.aborted) {
        await tryOnce()
        if (error) throw error
      }
    },
    /** End it, and delete what the daemon has of it. If that fails, it deletes the file after a day. */
    async cancel(): Promise<void> {
      // It has ended already: nothing is deleted in the name of somebody else.
      if (signal.aborted) return
      reject(new ChatError('cancelled', 'The upload was cancelled.', 400))
      stop()
      await attempting
      await server.drop(id).catch(() => {})
    },
  }
}

/** False if the browser can read nothing of the file: it was changed since it was chosen, or it is a folder. */
async function isReadable(file: Blob): Promise<boolean> {
  try {
    await file.slice(0, 1).arrayBuffer()
    return true
  } catch {
    return false
  }
}
