/**
 * The uploads of files that a person has chosen: the client's (client/src/upload.ts), by the file's id. Bytes are in memory only;
 * what is stored of a file (`ChosenFile`) is enough to ask after a reload whether its upload had ended.
 */

import type { Put } from '../../client/src/put'
import { createUpload, isPassing, type RunningUpload, type UploadServer, type UploadState } from '../../client/src/upload'
import { uuid } from '../../client/src/util'
import { type Api, ApiError } from './api'
import type { TaskScope } from './scope'
import type { Body } from './types'

/** A file that a person has chosen: what is kept of it in the tab's storage. */
export interface ChosenFile {
  id: string
  name: string
  type: string
  bytes: number
  alt: string
}

export interface UploadStatus {
  /** `unknown`: chosen before a reload, and not asked for since. `failed`: another try may follow by itself. */
  state: 'unknown' | 'uploading' | 'stored' | 'failed'
  /** The share that was sent, from 0 to 1. */
  progress: number
  /** The reason of a failure, for the user. */
  error: string
  /** True if another attempt may succeed. */
  transient: boolean
}

interface Entry extends UploadStatus {
  /** Missing after a reload. */
  file?: File | undefined
  code: string
  upload: RunningUpload
}

/** What the uploads need from the page. */
export interface UploadsOwner {
  /** For whom the file is: empty for a player's own chat. */
  targetOf(session: string): { sessionId?: string }
  describe(error: unknown): string
  onChange(): void
}

const UNKNOWN: UploadStatus = { state: 'unknown', progress: 0, error: '', transient: true }

export class Uploads {
  private readonly byId = new Map<string, Entry>()
  private readonly server: UploadServer

  constructor(
    private readonly api: Api,
    scope: TaskScope,
    private readonly transport: Put,
    private readonly owner: UploadsOwner,
  ) {
    this.server = {
      begin: (file) => api.beginAttachment(file as Body<'beginAttachment'>),
      read: (id) => api.attachment(id),
      drop: (id) => api.dropAttachment(id),
      put: (...given) => this.transport(...given),
      now: () => api.now(),
    }
    scope.signal.addEventListener('abort', () => this.byId.forEach(({ upload }) => upload.stop()))
  }

  /** Start the upload of a file that a person has chosen for a session. */
  add(session: string, file: File): ChosenFile {
    const chosen: ChosenFile = { id: uuid(), name: file.name || 'file', type: file.type || 'application/octet-stream', bytes: file.size, alt: '' }
    void this.enter(session, chosen, file).run()
    return chosen
  }

  statusOf({ id }: ChosenFile): UploadStatus {
    return this.byId.get(id) ?? UNKNOWN
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
    const upload = this.enter(session, chosen)
    // Not at once: a component may have caused this while it is rendered.
    queueMicrotask(() => void upload.run())
  }

  /** Try a failed upload again. */
  retry({ id }: ChosenFile): void {
    void this.byId.get(id)?.upload.run()
  }

  /** A message with the files is about to be sent: wait until they are stored and described. Raises ApiError if one of them failed. */
  async whenStored(session: string, files: readonly ChosenFile[]): Promise<void> {
    for (const chosen of files) this.adopt(session, chosen)
    const found = files.map(({ id }) => this.byId.get(id)!)
    found.forEach(({ upload }, n) => void upload.run(files[n]!.alt))
    await Promise.allSettled(found.map(({ upload }) => upload.settle()))
    for (const { state, transient, code, error } of found) if (state === 'failed') throw new ApiError(transient ? 0 : 409, code, error)
  }

  /** Stop an upload, and delete what the server has of it. */
  cancel({ id }: ChosenFile): void {
    const found = this.byId.get(id)
    this.forget([id])
    if (found) void found.upload.cancel()
    else this.api.dropAttachment(id).catch(() => {})
  }

  /** The message with these files is stored. */
  forget(ids: readonly string[]): void {
    for (const id of ids) this.byId.delete(id)
  }

  private enter(session: string, chosen: ChosenFile, file?: File): RunningUpload {
    const upload = createUpload(this.server, { ...chosen, ...this.owner.targetOf(session) }, file, (fields) => this.update(entry, fields))
    const entry: Entry = { ...UNKNOWN, state: 'uploading', code: '', file, upload }
    this.byId.set(chosen.id, entry)
    return upload
  }

  private update(entry: Entry, fields: UploadState): void {
    Object.assign(entry, fields)
    if ('error' in fields) {
      const { error } = fields
      const text = error instanceof ApiError ? this.owner.describe(error) : error?.message
      Object.assign(entry, { error: text ?? '', code: error?.code ?? '', transient: !error || isPassing(error), ...(error && { state: 'failed' }) })
    }
    this.owner.onChange()
  }
}
