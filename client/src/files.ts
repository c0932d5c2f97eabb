/** The uploads of this page. Their code, in more.ts, is loaded with the first one. */

import type { Upload, UploadOptions } from './api.js'
import type { ChatError } from './errors.js'
import type { More } from './more.js'
import type { Attachment } from './protocol.js'
import type { Ending, RunningUpload } from './upload.js'
import { uuid } from './util.js'

export function createFiles(code: () => Promise<More>, changed: () => void) {
  /** Those of the person: emptied when another one signs in. */
  const uploads = new Map<string, Upload>()

  const upload = (file: Blob & { name?: string }, options: UploadOptions = {}): Upload => {
    const listeners = new Set<() => void>()
    const id = uuid()
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
        running ??= more.upload(id, file, options, set, settle, uploads.has(id))
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
        void code().then(() => {
          uploads.delete(id)
          void running?.cancel()
          changed()
        }, settle[1])
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

  return { uploads, upload }
}
