/** The private notes of one session, in the order of their number. They never leave the staff. */

import { type Api, ApiError } from './api'
import type { Note } from './types'

export class Notes {
  list: Note[] = []
  /** True if the notes could not be loaded. */
  failed = false
  /** Incremented by each reason to load. */
  private requests = 0
  private loading: Promise<void> | undefined

  constructor(
    private readonly session: string,
    private readonly api: Api,
    private readonly onChange: () => void,
  ) {}

  /** Load the notes after those that are loaded; a request that is running may be too early for them, so another follows. */
  load(): Promise<void> {
    this.requests += 1
    this.loading ??= this.loadPages().finally(() => (this.loading = undefined))
    return this.loading
  }

  /** Insert a note from the socket or of a response; notes that are missing before it are loaded. */
  add(note: Note): void {
    if (note.n > this.lastNumber + 1) return void this.load()
    if (note.n <= this.lastNumber) return
    this.list = [...this.list, note]
    this.onChange()
  }

  private get lastNumber(): number {
    return this.list.at(-1)?.n ?? 0
  }

  private async loadPages(): Promise<void> {
    try {
      for (let more = true, answered = 0; more || answered !== this.requests; ) {
        answered = this.requests
        const page = await this.api.notes(this.session, this.lastNumber)
        more = page.has_more
        this.list = [...this.list, ...page.notes.filter(({ n }) => n > this.lastNumber)]
      }
      this.failed = false
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.failed = true
    }
    this.onChange()
  }
}
