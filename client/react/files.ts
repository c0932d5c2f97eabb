/** Hooks for files: those that are being uploaded for the next message, and addresses of those in messages. */

import { useEffect, useMemo, useState, useSyncExternalStore } from 'react'
import type { Attachment, Chat, ChatError, Upload, UploadOptions } from '../src/index.js'
import { useChat } from './context.js'
import { NOTHING } from './snapshot.js'

/** How far a file is. */
export interface UploadProgress {
  readonly id: string
  readonly name: string
  readonly state: Upload['state']
  /** From 0 to 1. */
  readonly progress: number
  readonly error?: ChatError
}

/** The files of the next message. */
export interface Uploads {
  readonly uploads: readonly UploadProgress[]
  /** Whether one is not stored yet: wait with the message. */
  readonly busy: boolean
  /** Begin to upload files, such as `input.files` or those of a paste. */
  add(files: Iterable<Blob & { name?: string }>, options?: UploadOptions): void
  /** Say in words what one shows, also after its upload: it is busy until the server has it. */
  describe(id: string, alt: string): void
  /** Take one out; what is under way is ended. */
  remove(id: string): void
  /** Return the ids of the stored files, for `files` of a message, and take them out. */
  take(): string[]
}

type Entry = { upload: Upload; name: string; leave: () => void }

/** The handles of a composer's uploads; the chat has their state. */
class UploadList {
  #entries: Entry[] = []
  #shown: readonly UploadProgress[] = NOTHING
  readonly #listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  readonly shown = (): readonly UploadProgress[] => this.#shown

  add(upload: Upload, name: string): void {
    upload.done.catch(() => {}) // `state` and `error` tell of it
    this.#entries = [...this.#entries, { upload, name, leave: upload.subscribe(() => this.#change()) }]
    this.#change()
  }

  describe(id: string, alt: string): void {
    this.#find(id)?.upload.describe(alt)
  }

  remove(id: string): void {
    const entry = this.#find(id)
    if (!entry) return
    this.#drop([entry])
    if (entry.upload.state === 'uploading') entry.upload.cancel()
  }

  take(): string[] {
    const stored = this.#entries.filter(({ upload }) => upload.state === 'stored')
    this.#drop(stored)
    return stored.map(({ upload }) => upload.id)
  }

  #find(id: string): Entry | undefined {
    return this.#entries.find(({ upload }) => upload.id === id)
  }

  #drop(gone: readonly Entry[]): void {
    for (const { leave } of gone) leave()
    this.#entries = this.#entries.filter((entry) => !gone.includes(entry))
    this.#change()
  }

  #change(): void {
    this.#shown = this.#entries.map(({ upload: { id, state, progress, error }, name }) => ({
      id,
      name,
      state,
      progress,
      ...(error && { error }),
    }))
    for (const listener of this.#listeners) listener()
  }
}

const noUploads = (): readonly UploadProgress[] => NOTHING

/**
 * Return the files of the next message. `sessionId` is for staff; a player's files are the player's own.
 *
 * @example
 * const { uploads, busy, add, take } = useUpload()
 * <input type="file" multiple onChange={(event) => add(event.target.files ?? [])} />
 * <button disabled={busy} onClick={() => send(text, { files: take() })}>Send</button>
 */
export function useUpload(sessionId?: string): Uploads {
  const chat = useChat()
  const [list] = useState(() => new UploadList())
  const uploads = useSyncExternalStore(list.subscribe, list.shown, noUploads)
  return useMemo(
    () => ({
      uploads,
      busy: uploads.some(({ state }) => state === 'uploading'),
      add(files: Iterable<Blob & { name?: string }>, options?: UploadOptions) {
        for (const file of files) {
          const upload = chat.upload(file, { ...(sessionId !== undefined && { sessionId }), ...options })
          list.add(upload, options?.name ?? file.name ?? '')
        }
      },
      describe: (id: string, alt: string) => list.describe(id, alt),
      remove: (id: string) => list.remove(id),
      take: () => list.take(),
    }),
    [chat, list, sessionId, uploads],
  )
}

/**
 * Return the address of a file of a message, or `undefined` until it is known and while the file cannot be fetched.
 * It is asked for again when the file's state changes.
 *
 * @example
 * const url = useFileUrl(attachment, 'thumb')
 * {url && <img src={url} alt={attachment.alt ?? attachment.name} width={attachment.width} height={attachment.height} />}
 */
export function useFileUrl(attachment: Pick<Attachment, 'id' | 'state'>, variant?: Parameters<Chat['url']>[1]): string | undefined {
  const chat = useChat()
  const { id, state } = attachment
  const [found, setFound] = useState<{ of: string; url: string }>()
  const wanted = `${id} ${variant} ${state}`
  useEffect(() => {
    let current = true
    const keep = (url: string): void => {
      if (current) setFound({ of: wanted, url })
    }
    chat.url(id, variant).then(keep, () => {}) // without an address nothing is shown; the message is
    return () => {
      current = false
    }
  }, [chat, id, variant, wanted])
  return found?.of === wanted ? found.url : undefined
}
