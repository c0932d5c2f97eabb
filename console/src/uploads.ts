/**
 * The uploads of files that a person has chosen. Bytes are in memory only; what is stored of a file (`ChosenFile`) is enough to
 * ask after a reload whether its upload had ended.
 *
 * A file keeps its id through all attempts: the server has one object for it, so a retry makes no copy. After an upload without
 * an answer the server is asked whether the bytes are there before they are sent again.
 */

import { uuid } from '../../client/src/util'
import { type Api, ApiError } from './api'
import type { TaskScope } from './scope'
import { StorageRefusal, type Transport, type UploadAddress } from './upload-transport'

/** A file that a person has chosen: what is kept of it in the tab's storage. */
export interface ChosenFile {
  id: string
  name: string
  type: string
  bytes: number
  alt: string
}

export interface UploadStatus {
  /** `unknown`: chosen before a reload, and not asked for since. */
  state: 'unknown' | 'uploading' | 'stored' | 'failed'
  /** The share that was sent, from 0 to 1. */
  progress: number
  /** The reason of a failure, for the user. */
  error: string
  /** True if another attempt may succeed. */
  transient: boolean
}

interface Upload extends UploadStatus {
  session: string
  /** Missing after a reload. */
  file?: File
  /** The address of an earlier attempt, as long as it is valid: asking for one counts in a person's quota. */
  address?: UploadAddress | undefined
  code: string
  /** True if an earlier attempt may have stored the bytes. */
  unanswered: boolean
  /** The alt text that the server has. */
  announcedAlt?: string
  running?: Promise<void> | undefined
  readonly controller: AbortController
}

/** What the uploads need from the page. */
export interface UploadsOwner {
  /** For whom the file is: empty for a player's own chat. */
  targetOf(session: string): { sessionId?: string }
  describe(error: unknown): string
  onChange(): void
}

/** Bytes: the server's limit. */
export const MAX_BYTES = 26_214_400
/** Milliseconds before the second, third and fourth attempt of an upload that is not awaited by a message. */
const RETRY_DELAYS = [1000, 3000, 8000]
/** Refusals with the status of a passing one that another attempt soon does not change. */
const LASTING = new Set(['file_quota', 'too_many_files', 'files_off'])
const INTERRUPTED = 'The upload was interrupted.'
const UNREADABLE = 'This file cannot be read: it was moved, changed or deleted, or it is a folder. Remove it and choose it again.'
const LOST = 'The upload was interrupted when the page was closed. Remove the file and choose it again.'

export class Uploads {
  private readonly byId = new Map<string, Upload>()

  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
    private readonly transport: Transport,
    private readonly owner: UploadsOwner,
  ) {}

  /** Start the upload of a file that a person has chosen for a session. */
  add(session: string, file: File): ChosenFile {
    const chosen: ChosenFile = { id: uuid(), name: file.name || 'file', type: file.type || 'application/octet-stream', bytes: file.size, alt: '' }
    this.byId.set(chosen.id, { ...newUpload(session), file })
    void this.attemptAll(chosen)
    return chosen
  }

  statusOf({ id }: ChosenFile): UploadStatus {
    return this.byId.get(id) ?? { state: 'unknown', progress: 0, error: '', transient: true }
  }

  /** The bytes of a file, for a preview; undefined after a reload. */
  fileOf({ id }: ChosenFile): File | undefined {
    return this.byId.get(id)?.file
  }

  /** True while bytes that only this page has are not stored: those of drafts and of messages. */
  get isUploading(): boolean {
    return [...this.byId.values()].some(({ file, state }) => file !== undefined && state !== 'stored')
  }

  /** A file of an earlier visit of the page: ask whether its bytes are stored. */
  adopt(session: string, chosen: ChosenFile): void {
    if (this.byId.has(chosen.id)) return
    this.byId.set(chosen.id, { ...newUpload(session), unanswered: true })
    // Not at once: a component may have caused this while it is rendered.
    queueMicrotask(() => void this.attempt(chosen))
  }

  /** Try a failed upload again. */
  retry(chosen: ChosenFile): void {
    void this.attemptAll(chosen)
  }

  /** A message with the files is about to be sent: wait until they are stored. Raises ApiError if one of them failed. */
  async whenStored(session: string, files: readonly ChosenFile[]): Promise<void> {
    for (const chosen of files) this.adopt(session, chosen)
    await Promise.all(files.map((chosen) => this.attempt(chosen)))
    await Promise.all(files.map((chosen) => this.attempt(chosen, true)))
    for (const { id } of files) {
      const found = this.byId.get(id)
      if (found?.state === 'failed') throw new ApiError(found.transient ? 0 : 409, found.code, found.error)
    }
  }

  /** Stop an upload, and delete what the server has of it. */
  cancel({ id }: ChosenFile): void {
    const found = this.byId.get(id)
    this.forget([id])
    found?.controller.abort()
    // If this fails, the server deletes the file after a day.
    void (found?.running ?? Promise.resolve()).then(() => this.api.dropAttachment(id)).catch(() => {})
  }

  /** The message with these files is stored. */
  forget(ids: readonly string[]): void {
    for (const id of ids) this.byId.delete(id)
  }

  /** One attempt, and more after a failure that may pass. */
  private async attemptAll(chosen: ChosenFile): Promise<void> {
    for (const delay of [...RETRY_DELAYS, undefined]) {
      await this.attempt(chosen)
      const found = this.byId.get(chosen.id)
      if (!found || found.state !== 'failed' || !found.transient || delay === undefined) return
      await this.scope.sleep(delay)
      // A message that waits for the file may have tried it meanwhile.
      if (this.byId.get(chosen.id)?.state !== 'failed') return
    }
  }

  /**
   * One attempt; concurrent calls share it. It does not raise: the outcome is the file's status. With `announce`, only the alt
   * text of a stored file is sent, if it was changed after the upload began.
   */
  private attempt(chosen: ChosenFile, announce = false): Promise<void> {
    const found = this.byId.get(chosen.id)
    if (!found || (found.state === 'stored' ? !announce || (found.announcedAlt ?? '') === chosen.alt : announce)) return Promise.resolve()
    found.running ??= this.run(chosen, found).finally(() => {
      found.running = undefined
      this.owner.onChange()
    })
    return found.running
  }

  private async run(chosen: ChosenFile, found: Upload): Promise<void> {
    const signal = AbortSignal.any([found.controller.signal, this.scope.signal])
    const wasStored = found.state === 'stored'
    if (!wasStored) Object.assign(found, { state: 'uploading', progress: 0, error: '', transient: true, code: '' })
    this.owner.onChange()
    try {
      if (chosen.bytes > MAX_BYTES) throw new ApiError(413, 'file_too_large', 'The file is larger than 25 MB.')
      if (wasStored || !(await this.isStored(chosen, found))) await this.send(chosen, found, signal)
      Object.assign(found, { state: 'stored', progress: 1, address: undefined, unanswered: false })
    } catch (error) {
      if (signal.aborted) return
      const { transient, code, text } = this.judge(error)
      Object.assign(found, { state: 'failed', error: text, transient, code })
      // Its alt text was not announced; the bytes are there.
      if (wasStored) found.unanswered = true
    }
  }

  private async isStored({ id }: ChosenFile, found: Upload): Promise<boolean> {
    if (!found.unanswered) return false
    try {
      const { attachment } = await this.api.attachment(id)
      found.unanswered = false
      found.announcedAlt = attachment.alt ?? ''
      return attachment.state !== 'awaited'
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error
      return false
    }
  }

  private async send(chosen: ChosenFile, found: Upload, signal: AbortSignal): Promise<void> {
    const { id, name, type, bytes, alt } = chosen
    if (!found.file && found.state !== 'stored') throw new ApiError(409, 'upload_lost', LOST)
    if (!this.isUsable(found.address) || found.announcedAlt !== alt) {
      const target = this.owner.targetOf(found.session)
      const begun = await this.api.beginAttachment({ id, name, type, bytes, alt, ...target })
      found.announcedAlt = alt
      found.address = begun.upload ?? undefined
      if (!begun.upload) return
    }
    if (signal.aborted || !found.file || !found.address) return
    found.unanswered = true
    try {
      await this.transport(found.address, found.file, (progress) => {
        found.progress = progress
        this.owner.onChange()
      }, signal)
    } catch (error) {
      if (!(error instanceof StorageRefusal)) throw signal.aborted || (await isReadable(found.file)) ? error : new ApiError(409, 'file_unreadable', UNREADABLE)
      // The next attempt asks for another address: this one may have ended.
      found.address = undefined
      // An earlier attempt may have stored the bytes after all.
      if (![403, 409].includes(error.status)) found.unanswered = false
      else if (await this.isStored(chosen, found)) return
      throw error
    }
  }

  private isUsable(address: UploadAddress | undefined): boolean {
    return address?.expiresAt != null && Date.parse(address.expiresAt) > this.api.now() + 10_000
  }

  private judge(error: unknown): { transient: boolean; code: string; text: string } {
    if (error instanceof ApiError) return { transient: error.transient && !LASTING.has(error.code), code: error.code, text: this.owner.describe(error) }
    if (!(error instanceof StorageRefusal)) return { transient: true, code: 'upload_interrupted', text: INTERRUPTED }
    switch (error.status) {
      case 413:
        return { transient: false, code: 'file_too_large', text: 'The file is too large for this chat.' }
      case 403:
      case 415:
        return { transient: false, code: 'file_refused', text: 'Files of this type or size are not taken.' }
      default:
        return { transient: true, code: 'upload_failed', text: 'The storage of the files does not take it at the moment.' }
    }
  }
}

/** False if the browser can read nothing of the file: it was changed since it was chosen, or it is a folder. */
async function isReadable(file: File): Promise<boolean> {
  try {
    await file.slice(0, 1).arrayBuffer()
    return true
  } catch {
    return false
  }
}

function newUpload(session: string): Upload {
  return { session, state: 'uploading', progress: 0, error: '', transient: true, code: '', unanswered: false, controller: new AbortController() }
}
