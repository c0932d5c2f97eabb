/**
 * The search of messages in all sessions: what the form says, and the pages found, newest first.
 *
 * It is kept in the memory of the tab only: the words may be private, so they are neither in the address nor in storage.
 */

import { type Api, ApiError } from './api'
import type { FoundMessage, Query } from './types'

/** The fields of the form, as text; empty: no restriction. The days are those of the browser's time zone, YYYY-MM-DD. */
export interface SearchForm {
  text: string
  player: string
  staffId: string
  from: string
  to: string
}

const EMPTY: SearchForm = { text: '', player: '', staffId: '', from: '', to: '' }
/** The server's bounds, in characters. */
const MIN_LENGTH = 2
const MAX_LENGTH = 100

export class MessageSearch {
  form: SearchForm = EMPTY
  state: 'idle' | 'loading' | 'done' | 'failed' = 'idle'
  results: readonly FoundMessage[] = []
  /** The number of messages in the last page: the server ends a page early, even an empty one, where a search takes long. */
  lastPageSize = 0
  /** The reason of the state `failed`. */
  error = ''
  /** True if the same request may succeed later. */
  canRetry = false
  /** The scroll position of the view in pixels. */
  scrollTop = 0
  private query: Query<'searchMessages'> | undefined
  private cursor: string | null = null
  /** Incremented by each search; a page of an older one is dropped. */
  private generation = 0

  constructor(
    private readonly api: Api,
    private readonly describe: (error: unknown) => string,
    private readonly onChange: () => void,
  ) {}

  /** The words whose messages are shown. */
  get words(): string {
    return this.query?.q ?? ''
  }

  /** True if older messages were not searched yet. */
  get hasMore(): boolean {
    return this.cursor !== null
  }

  change(fields: Partial<SearchForm>): void {
    this.form = { ...this.form, ...fields }
    this.onChange()
  }

  /** Search these words without other restrictions. */
  startWith(text: string): Promise<void> {
    this.form = { ...EMPTY, text }
    return this.start()
  }

  /** Search what the form says. */
  async start(): Promise<void> {
    this.generation += 1
    this.results = []
    this.cursor = null
    this.scrollTop = 0
    const query = queryOf(this.form)
    this.query = typeof query === 'string' ? undefined : query
    if (typeof query === 'string') this.fail(query, false)
    else await this.load(query)
  }

  /** Load the next page, or after a failure the same one again. */
  async loadMore(): Promise<void> {
    if (this.query && this.state !== 'loading') await this.load(this.query)
  }

  private async load(query: Query<'searchMessages'>): Promise<void> {
    const { generation } = this
    this.state = 'loading'
    this.onChange()
    try {
      const page = await this.api.search({ ...query, cursor: this.cursor })
      if (generation !== this.generation) return
      const known = new Set(this.results.map(({ id }) => id))
      this.results = [...this.results, ...page.messages.filter(({ id }) => !known.has(id))]
      this.lastPageSize = page.messages.length
      this.cursor = page.next
      this.state = 'done'
      this.onChange()
    } catch (error) {
      if (generation !== this.generation) return
      const wait = error instanceof ApiError && error.retryAfter > 0 ? ` Try again in ${error.retryAfter} s.` : ''
      this.fail(this.describe(error) + wait, !(error instanceof ApiError) || error.transient)
    }
  }

  private fail(error: string, canRetry: boolean): void {
    this.state = 'failed'
    this.error = error
    this.canRetry = canRetry
    this.onChange()
  }
}

/** The query of a form; a text that says why it is none. */
function queryOf({ text, player, staffId, from, to }: SearchForm): Query<'searchMessages'> | string {
  const words = text.trim()
  const { length } = [...words]
  if (length < MIN_LENGTH || length > MAX_LENGTH) return `Write ${MIN_LENGTH} to ${MAX_LENGTH} characters to search for.`
  const number = player.trim().replace(/^#/, '')
  if (number && !/^\d{1,18}$/.test(number)) return 'The player is a number.'
  return {
    q: words,
    ...(number && { player: number }),
    ...(staffId && { staff: staffId }),
    ...(from && { from: startOfDay(from, 0) }),
    ...(to && { to: startOfDay(to, 1) }),
  }
}

/** The beginning of a local day, or of the day so many days later, as a time with a time zone. */
function startOfDay(day: string, later: number): string {
  const [year = 0, month = 1, date = 1] = day.split('-').map(Number)
  return new Date(year, month - 1, date + later).toISOString()
}
