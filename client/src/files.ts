/** The uploads of this page. Their code, in more.ts, is loaded with the first one. */

import type { Upload, UploadOptions } from './api.js'
import type { ChatError } from './errors.js'
import type { More } from './more.js'
import type { Attachment } from './protocol.js'
import type { Ending, RunningUpload } from './upload.js'
import { uuid } from './util.js'

export function createFiles(code: () => Promise<More>, changed: () => void) {
  const uploads = new Map<string, Upload>()
  /** Counts the persons: an upload belongs to one. */
  let persons = 0

  const upload = (file: Blob & { name?: string }, options: UploadOptions = {}): Upload => {
    const listeners = new Set<() => void>()
    const id = uuid()
    const person = persons
    const set = (fields: Partial<Upload>): void => {
      Object.assign(own, fields)
      listeners.forEach((listener) => listener())
      changed()
    }
    let running: RunningUpload | undefined
    let settle!: Ending
    const done = new Promise<Attachment>((...both) => (settle = both))
    const failed = (error: ChatError): void => set({ state: 'failed', error })
    /** Begin, try again, or change the alt text; all need the code. */
    const run = (alt?: string): void =>
      void code().then((more) => {
        running ??= more.upload(id, file, options, set, settle, person === persons)
        void running.run(alt)
      }, failed)
    const own: Upload = {
      id,
      state: 'uploading',
      progress: 0,
      done,
      retry: run,
      describe: run,
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
    run()
    return own
  }

  return {
    uploads,
    upload,
    clear(): void {
      persons += 1
      uploads.clear()
    },
  }
}
