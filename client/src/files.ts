/** The uploads of this page. Their code, in more.ts, is loaded with the first one. */

import type { Upload, UploadOptions } from './api.js'
import type { ChatError } from './errors.js'
import type { More } from './more.js'
import type { Attachment } from './protocol.js'
import { uuid } from './util.js'

export function createFiles(code: () => Promise<More>, changed: () => void) {
  const uploads = new Map<string, Upload>()

  const upload = (file: Blob & { name?: string }, options: UploadOptions = {}): Upload => {
    const listeners = new Set<() => void>()
    const id = uuid()
    const set = (fields: Partial<Upload>): void => {
      Object.assign(own, fields)
      listeners.forEach((listener) => listener())
      changed()
    }
    let running: ReturnType<More['upload']> | undefined
    let settle!: [(file: Attachment) => void, (error: ChatError) => void]
    const done = new Promise<Attachment>((...both) => (settle = both))
    const failed = (error: ChatError): void => set({ state: 'failed', error })
    /** Begin, or try again; both need the code. */
    const retry = (): void =>
      void code().then((more) => {
        if (running) return running.retry()
        running = more.upload(id, file, options, set)
        return running.done.then(...settle)
      }, failed)
    const own: Upload = {
      id,
      state: 'uploading',
      progress: 0,
      done,
      retry,
      cancel() {
        uploads.delete(id)
        void code().then(() => running?.cancel(), settle[1])
        changed()
      },
      subscribe(listener) {
        listeners.add(listener)
        return () => listeners.delete(listener)
      },
    }
    // The state says it, too.
    done.catch(failed)
    uploads.set(id, own)
    retry()
    return own
  }

  return { uploads, upload }
}
