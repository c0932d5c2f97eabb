/** The uploads of this page, and the addresses of files. The code for both is loaded with the first file. */

import type { Upload, UploadOptions } from './api.js'
import { ChatError } from './errors.js'
import type { Attachment } from './protocol.js'
import type { Rest } from './rest.js'
import { later, uuid } from './util.js'

export function createFiles(rest: Rest, changed: () => void) {
  const uploads = new Map<string, Upload>()
  const code = later(() => import('./uploads.js'))
  let links: ((id: string, variant: string) => Promise<string>) | undefined

  const upload = (file: Blob & { name?: string }, options: UploadOptions = {}): Upload => {
    const listeners = new Set<() => void>()
    const controller = new AbortController()
    let resolve!: (file: Attachment) => void
    let reject!: (error: ChatError) => void
    const done = new Promise<Attachment>((yes, no) => ([resolve, reject] = [yes, no]))
    done.catch(() => {}) // The state says it, too.
    const own = {
      id: uuid(),
      state: 'failed' as Upload['state'],
      progress: 0,
      error: undefined as ChatError | undefined,
      done,
      async retry() {
        if (own.state !== 'failed') return
        set('uploading')
        try {
          const { uploadFile } = await code()
          resolve(await uploadFile(rest, own.id, file, options, (share) => set('uploading', share), controller.signal))
          set('stored', 1)
        } catch (error) {
          if (!(error as ChatError).transient) reject(error as ChatError)
          set('failed', own.progress, error as ChatError)
        }
      },
      cancel() {
        uploads.delete(own.id)
        controller.abort()
        reject(new ChatError('cancelled', 'The upload was cancelled.'))
        // If this fails, the server deletes the file after a day.
        rest('DELETE', `/api/gre-chat/attachments/${own.id}`).catch(() => {})
        changed()
      },
      subscribe(listener: () => void) {
        listeners.add(listener)
        return () => void listeners.delete(listener)
      },
    }
    const set = (state: Upload['state'], progress = 0, error?: ChatError): void => {
      Object.assign(own, { state, progress, error })
      for (const listener of listeners) listener()
      if (state !== 'uploading') changed()
    }
    uploads.set(own.id, own)
    void own.retry()
    return own
  }

  return {
    uploads,
    upload,
    async url(id: string, variant = 'file'): Promise<string> {
      const { createLinks } = await code()
      return (links ??= createLinks(rest))(id, variant)
    },
    clear(): void {
      uploads.clear()
      links = undefined
    },
  }
}
