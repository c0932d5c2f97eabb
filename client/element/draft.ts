/** The message that is being written: its text and its files. It is the person's, and survives a reload. */

import type { Chat, ChatError, Person, Upload } from '../src/index'
import { loadDraft, storeDraft } from './kept'

/** Files of a message, and bytes of a file: what the server takes. */
export const MAX_FILES = 5
export const MAX_BYTES = 25 * 1024 * 1024

export interface DraftFile {
  id: string
  alt: string
  name: string
  bytes: number
  picture: boolean
  state: 'uploading' | 'stored' | 'failed'
  /** From 0 to 1. */
  progress: number
  error?: ChatError | undefined
  /** Absent from files that were uploaded earlier: after a reload, or with a refused text. */
  upload?: Upload
}

/** Why files were not taken. */
export type Rejection = { kind: 'many' } | { kind: 'large'; name: string }

export class Draft {
  /** The field changes it with `write`. */
  text = ''
  files: readonly DraftFile[] = []
  /** True while a message waits for its files. */
  waiting = false
  private wake: (() => void) | undefined
  /** The name under which it is kept; undefined while nobody knows who writes. */
  private name: string | undefined
  /** For whom a message that waits for its files is sent; null: for nobody any more. */
  private asker: string | undefined | null

  /** `onChange` is called after every change but those of `write`. `url` is the daemon's address, as far as the page gives it. */
  constructor(
    private readonly chat: Chat,
    private readonly onChange: () => void,
    private readonly url = '',
  ) {}

  private store(): void {
    if (this.name !== undefined) storeDraft(this.name, this)
  }

  private changed(): void {
    this.store()
    this.onChange()
    this.wake?.()
  }

  /** The person has changed the text. */
  write(text: string): void {
    this.text = text
    this.store()
  }

  /**
   * Show the draft of this person. What was written for another one is kept for that one and gone from here; what was written
   * while nobody knew by whom belongs to whom the server then names.
   */
  belongTo(person: Person | undefined): void {
    const name = person && `gre-chat-draft:${this.url}|${person.staffId == null ? `player:${person.playerId}` : `staff:${person.staffId}`}`
    if (name === this.name) return
    if (this.name !== undefined) {
      this.text = ''
      this.files = []
      this.asker = null
      this.wake?.()
    }
    this.name = name
    const kept = name !== undefined && loadDraft(name)
    if (!kept) {
      if (this.asker === undefined) this.asker = name
      return this.store()
    }
    this.text = [kept.text, this.text].filter(Boolean).join('\n')
    this.files = [...kept.files.map(restored), ...this.files].slice(0, MAX_FILES)
    this.store()
  }

  get isEmpty(): boolean {
    return !this.text.trim() && !this.files.length
  }

  /** Upload files; returns why some were not taken. */
  add(files: readonly File[]): Rejection | undefined {
    let rejected: Rejection | undefined
    for (const file of files) {
      if (file.size > MAX_BYTES) rejected = { kind: 'large', name: file.name }
      else if (this.files.length >= MAX_FILES) rejected = { kind: 'many' }
      else this.upload(file)
    }
    return rejected
  }

  private upload(file: File): void {
    const upload = this.chat.upload(file, { name: file.name })
    const { id } = upload
    const picture = file.type.startsWith('image/')
    this.files = [...this.files, { id, alt: '', name: file.name, bytes: file.size, picture, state: upload.state, progress: upload.progress, upload }]
    upload.subscribe(() => {
      const { state, progress, error } = upload
      this.set(id, { state, progress, error })
    })
    upload.done.catch(() => {}) // `state` says it
    this.changed()
  }

  private set(id: string, fields: Partial<DraftFile>): void {
    this.files = this.files.map((item) => (item.id === id ? { ...item, ...fields } : item))
    this.changed()
  }

  /** Say what a picture shows, also after its upload. The message waits until the server has it. */
  describe(id: string, text: string): void {
    const described = this.find(id)
    const alt = text.trim()
    if (!described?.upload || described.alt === alt) return
    this.set(id, { alt })
    described.upload.describe(alt)
  }

  retry(id: string): void {
    this.find(id)?.upload?.retry()
  }

  remove(id: string): void {
    const removed = this.find(id)
    this.files = this.files.filter((file) => file !== removed)
    removed?.upload?.cancel()
    this.changed()
  }

  private find(id: string): DraftFile | undefined {
    return this.files.find((file) => file.id === id)
  }

  /** Send once all files are stored. Returns false if it is empty or a file has failed; then everything stays. */
  async send(): Promise<boolean> {
    if (this.waiting) return false
    this.waiting = true
    this.asker = this.name
    this.changed()
    // Files may be added, retried and removed meanwhile.
    while (this.files.some(({ state }) => state === 'uploading')) await new Promise<void>((resolve) => (this.wake = resolve))
    this.wake = undefined
    this.waiting = false
    // Nothing is sent for a person who has not asked for it.
    const sendable = this.asker === this.name && !this.isEmpty && this.files.every(({ state }) => state === 'stored')
    if (sendable) {
      this.chat.send(this.text.trim(), { files: this.files.map(({ id }) => id) })
      this.chat.setTyping(false)
      this.text = ''
      this.files = []
    }
    this.changed()
    return sendable
  }

  /** Put a text that was not sent back, with its files, before what is written already. */
  restore(id: string): void {
    const unsent = this.chat.discard(id)
    if (!unsent) return
    this.text = [unsent.text, this.text].filter(Boolean).join('\n')
    const known = new Set(this.files.map((file) => file.id))
    const files = unsent.files.filter((file) => !known.has(file)).map((id) => restored({ id, name: '', bytes: 0 }))
    this.files = [...files, ...this.files]
    this.changed()
  }
}

/** A file that was uploaded earlier. Its description cannot be changed any more. */
const restored = ({ id, name, bytes }: Pick<DraftFile, 'id' | 'name' | 'bytes'>): DraftFile => ({
  id, alt: '', name, bytes, picture: false, state: 'stored', progress: 1,
})
