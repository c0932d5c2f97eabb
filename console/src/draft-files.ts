/**
 * The files of replies that are being written: by session, and stored under their author like the text of a draft. A session's
 * files are sent with its own messages only.
 */

import type { Drafts } from './drafts'
import { parseJson } from './storage'
import type { ChosenFile, Uploads } from './uploads'

/** Files of one message: the server's limit. */
export const MAX_FILES = 5
const NO_FILES: readonly ChosenFile[] = []

export class DraftFiles {
  private readonly bySession = new Map<string, readonly ChosenFile[]>()
  /** The owner whose stored files are loaded. */
  private owner: string

  constructor(
    private readonly drafts: Drafts,
    private readonly uploads: Uploads,
    private readonly onChange: () => void,
  ) {
    this.owner = drafts.owner
  }

  of(session: string): readonly ChosenFile[] {
    if (this.owner !== this.drafts.owner) this.load()
    let files = this.bySession.get(session)
    if (!files) {
      files = this.stored(session)
      this.bySession.set(session, files)
      for (const file of files) this.uploads.adopt(session, file)
    }
    return files
  }

  /** Add files and start their uploads; return the number of those that were too many. */
  add(session: string, chosen: readonly File[]): number {
    const known = this.of(session)
    const room = Math.max(0, MAX_FILES - known.length)
    const added = chosen.slice(0, room).map((file) => this.uploads.add(session, file))
    this.set(session, [...known, ...added])
    return chosen.length - added.length
  }

  remove(session: string, file: ChosenFile): void {
    this.uploads.cancel(file)
    this.set(session, this.of(session).filter(({ id }) => id !== file.id))
  }

  setAlt(session: string, file: ChosenFile, alt: string): void {
    this.set(session, this.of(session).map((known) => (known.id === file.id ? { ...known, alt } : known)))
  }

  /** The files for a message that is being sent: they are no longer part of the draft. */
  take(session: string): readonly ChosenFile[] {
    const files = this.of(session)
    this.set(session, [])
    return files
  }

  /** Put the files of a message that was not sent back into its draft. */
  put(session: string, files: readonly ChosenFile[]): void {
    for (const file of files) this.uploads.adopt(session, file)
    this.set(session, [...this.of(session), ...files])
  }

  /** The user takes a draft to another session of the same player. */
  move(from: string, to: string): void {
    this.put(to, this.take(from))
  }

  discard(session: string): void {
    for (const file of this.of(session)) this.remove(session, file)
  }

  /** True if a file was refused or may not be uploaded at the moment. */
  hasFailed(session: string): boolean {
    return this.of(session).some((file) => this.uploads.statusOf(file).state === 'failed')
  }

  private set(session: string, files: readonly ChosenFile[]): void {
    this.bySession.set(session, files.length ? files : NO_FILES)
    this.drafts.set(session, files.length ? JSON.stringify(files) : '', 'files')
    this.onChange()
  }

  private stored(session: string): readonly ChosenFile[] {
    const files = parseJson<ChosenFile[]>(this.drafts.get(session, 'files') || null)
    return files?.length ? files : NO_FILES
  }

  /** The server reported the user's staff id: files that were stored under it come first. Those of another author stay theirs. */
  private load(): void {
    const chosen = this.owner ? [] : [...this.bySession]
    this.owner = this.drafts.owner
    this.bySession.clear()
    for (const [session, files] of chosen) {
      const known = new Set(this.of(session).map(({ id }) => id))
      const added = files.filter(({ id }) => !known.has(id))
      if (added.length) this.set(session, [...this.of(session), ...added])
    }
  }
}
