/** The files of the player's page, with the modules and components of the console: uploads over REST, shown by signed links. */

import type { SupabaseClient } from '@supabase/supabase-js'
import { render } from 'preact'
import { useState } from 'preact/hooks'
import { Api } from '../src/api'
import { newerAttachment, picturesOf } from '../src/attachments'
import { MAX_FILES } from '../src/draft-files'
import { Drafts } from '../src/drafts'
import { Emitter, useChanges } from '../src/emitter'
import { Files } from '../src/files'
import { TaskScope } from '../src/scope'
import '../src/style/files.css'
import type { Attachment } from '../src/types'
import type { ChosenFile } from '../src/uploads'
import { Attachments } from '../src/views/Attachments'
import { FileButtons, guardDrops, pastedFiles, useFileDrop } from '../src/views/FileInput'
import { FileTray } from '../src/views/FileTray'
import { Viewer } from '../src/views/Viewer'

/** A player has one draft. */
const DRAFT = 'chat'
const COLUMNS = 'id, kind, type, name, alt, bytes, width, height, preview, place, state, refused'
/** Milliseconds until the first look at files that are being examined; then twice as long each time. */
const FIRST_LOOK = 700
const MAX_LOOK = 15_000

interface Options {
  supabase: SupabaseClient
  playerId: number
  /** The daemon's address; null if the stack runs without one: then there are no files. */
  bridgeUrl: string | null
  token: string
  onChange: () => void
  showError: (text: string) => void
}

/** What a page needs for files; one per page. */
export class PlayerFiles extends Emitter {
  readonly files: Files | undefined
  /** The files of messages, by id. */
  private readonly known = new Map<string, Attachment>()
  private readonly boxes = new Map<HTMLElement, string[]>()
  /** Files that were deleted with their message. */
  private readonly missing = new Set<string>()
  private readonly scope = new TaskScope()
  private lookDelay = FIRST_LOOK
  private looking = false
  private lookNow = (): void => {}

  constructor(private readonly options: Options) {
    super()
    if (options.bridgeUrl === null) return
    const api = new Api(() => options.token, () => {}, this.scope, options.bridgeUrl)
    const describe = (error: unknown): string => (error instanceof Error ? error.message : 'That did not work.')
    const onChange = (): void => {
      this.emitChange()
      options.onChange()
    }
    this.files = new Files(api, this.scope, new Drafts(`player-${options.playerId}`), { targetOf: () => ({}), describe, onChange })
    guardDrops()
  }

  /** Render the buttons and the files of the draft. */
  start(buttons: HTMLElement, tray: HTMLElement, input: HTMLElement): void {
    if (!this.files) return
    input.addEventListener('paste', (event) => {
      const pasted = pastedFiles(event)
      if (!pasted.length) return
      event.preventDefault()
      this.add(pasted)
    })
    render(<Buttons onFiles={(chosen) => this.add(chosen)} />, buttons)
    render(<Draft page={this} files={this.files} />, tray)
  }

  get draft(): readonly ChosenFile[] {
    return this.files?.drafts.of(DRAFT) ?? []
  }

  get hasFailed(): boolean {
    return this.files?.drafts.hasFailed(DRAFT) ?? false
  }

  /** True while bytes of the draft that only this page has are not stored. */
  get isUploading(): boolean {
    return this.files?.uploads.isUploading ?? false
  }

  /** The draft's files for a message that is being sent. */
  take(): readonly ChosenFile[] {
    return this.files?.drafts.take(DRAFT) ?? []
  }

  /** Back into the draft. */
  put(files: readonly ChosenFile[]): void {
    this.files?.drafts.put(DRAFT, files)
  }

  remove(file: ChosenFile): void {
    this.files?.drafts.remove(DRAFT, file)
  }

  setAlt(file: ChosenFile, alt: string): void {
    this.files?.drafts.setAlt(DRAFT, file, alt)
  }

  private add(chosen: File[]): void {
    const left = this.files?.drafts.add(DRAFT, chosen) ?? 0
    if (left) this.options.showError(`A message can have ${MAX_FILES} files: ${left} ${left === 1 ? 'was' : 'were'} not added.`)
  }

  /** Send a message once its files are stored. */
  async sendWith<Stored>(files: readonly ChosenFile[], send: () => Promise<Stored>): Promise<Stored> {
    return this.files ? this.files.sendWith(DRAFT, files, send) : send()
  }

  /** Show the files of a message that is being sent. */
  showSending(box: HTMLElement, files: readonly ChosenFile[]): void {
    if (this.files && files.length) render(<Sending page={this} files={files} uploads={this.files.uploads} />, box)
  }

  /** Show the files of a stored message. */
  show(box: HTMLElement, ids: string[]): void {
    if (!this.files || !ids.length || this.boxes.has(box)) return
    this.boxes.set(box, ids)
    render(<Shown page={this} files={this.files} ids={ids} />, box)
    this.look()
  }

  attachments(ids: readonly string[]): Attachment[] {
    return ids.flatMap((id) => this.known.get(id) ?? [])
  }

  /** All files that are shown, in the order of the messages. */
  get all(): Attachment[] {
    return [...this.boxes.values()].flatMap((ids) => this.attachments(ids))
  }

  /** Read the files that are not known or still being examined, until there are none. */
  private look(): void {
    this.lookDelay = FIRST_LOOK
    this.lookNow()
    if (!this.looking) void this.lookOn()
  }

  private async lookOn(): Promise<void> {
    this.looking = true
    for (let due; (due = this.due()).length; this.lookDelay = Math.min(2 * this.lookDelay, MAX_LOOK)) {
      const { data } = await this.options.supabase.from('gre_chat_attachments').select(COLUMNS).in('id', due)
      if (data) for (const id of due) if (!data.some((row) => row.id === id)) this.missing.add(id)
      for (const row of (data ?? []) as Attachment[]) this.known.set(row.id, newerAttachment(this.known.get(row.id) ?? row, row))
      this.emitChange()
      if (this.due().length) await Promise.race([this.scope.sleep(this.lookDelay), new Promise<void>((resolve) => (this.lookNow = resolve))])
    }
    this.looking = false
  }

  private due(): string[] {
    return [...this.boxes.values()].flat().filter((id) => ['awaited', 'stored', undefined].includes(this.known.get(id)?.state) && !this.missing.has(id)).slice(-100)
  }
}

function Buttons({ onFiles }: { onFiles: (files: File[]) => void }) {
  useFileDrop(onFiles)
  return <FileButtons onFiles={onFiles} />
}

function Draft({ page, files }: { page: PlayerFiles; files: Files }) {
  useChanges(page)
  return <FileTray files={page.draft} uploads={files.uploads} edit={{ onRemove: (file) => page.remove(file), onAlt: (file, alt) => page.setAlt(file, alt) }} />
}

function Sending({ page, files, uploads }: { page: PlayerFiles; files: readonly ChosenFile[]; uploads: Files['uploads'] }) {
  useChanges(page)
  return <FileTray files={files} uploads={uploads} />
}

function Shown({ page, files, ids }: { page: PlayerFiles; files: Files; ids: string[] }) {
  useChanges(page)
  const [open, setOpen] = useState<string>()
  return (
    <>
      <Attachments files={page.attachments(ids)} links={files.links} onOpen={setOpen} />
      {open !== undefined && (
        <Viewer pictures={picturesOf([{ attachments: page.all }])} id={open} links={files.links} onMove={setOpen} onClose={() => setOpen(undefined)} />
      )}
    </>
  )
}
