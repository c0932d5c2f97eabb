/** The files of a page: uploads, the files of drafts, and links to show them. */

import { put } from '../../client/src/put'
import type { Api } from './api'
import { DraftFiles } from './draft-files'
import type { Drafts } from './drafts'
import { FileLinks } from './file-links'
import type { TaskScope } from './scope'
import { type ChosenFile, Uploads, type UploadsOwner } from './uploads'

export class Files {
  readonly uploads: Uploads
  readonly drafts: DraftFiles
  readonly links: FileLinks

  constructor(api: Api, scope: TaskScope, drafts: Drafts, owner: UploadsOwner) {
    this.uploads = new Uploads(api, scope, put, owner)
    this.drafts = new DraftFiles(drafts, this.uploads, () => owner.onChange())
    this.links = new FileLinks(api, scope)
  }

  /** Send a message with files once they are stored; `send` is repeated until it succeeds. */
  async sendWith<Stored>(session: string, files: readonly ChosenFile[] | undefined, send: () => Promise<Stored>): Promise<Stored> {
    if (!files?.length) return send()
    await this.uploads.whenStored(session, files)
    const stored = await send()
    this.uploads.forget(files.map(({ id }) => id))
    return stored
  }
}
