/** The uploads of this page. Their code, in more.ts, is loaded with the first one. */

import type { Upload, UploadOptions } from './api.js'
import type { More } from './more.js'
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
    const started = code().then((more) => more.upload(id, file, options, set))
    const done = started.then((running) => running.done)
    const own: Upload = {
      id,
      state: 'uploading',
      progress: 0,
      done,
      retry: () => void started.then((running) => running.retry()),
      cancel() {
        uploads.delete(id)
        void started.then((running) => running.cancel())
        changed()
      },
      subscribe(listener) {
        listeners.add(listener)
        return () => listeners.delete(listener)
      },
    }
    // The state says it, too.
    done.catch((error) => set({ state: 'failed', error }))
    uploads.set(id, own)
    return own
  }

  return { uploads, upload }
}
