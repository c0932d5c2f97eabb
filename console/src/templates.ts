/** The templates that the user can insert into a reply, the search among them, and the blanks of a text. */

import type { Api } from './api'
import type { Template } from './types'

/** The shortcut that is being typed in a text: from its slash to the cursor. */
export interface SlashQuery {
  start: number
  end: number
  query: string
}

const PLACEHOLDER = /\{\{\??([a-z_]{1,40})(\|[^{}]*)?\}\}/g
const MAX_MATCHES = 8

export class TemplateList {
  private list: readonly Template[] = []
  private loading: Promise<void> | undefined

  constructor(
    private readonly api: Api,
    private readonly onChange: () => void,
  ) {}

  /** Load the list again; the loaded one stays until then. A failure is not reported: the next call retries. */
  reload(): Promise<void> {
    this.loading ??= this.fetch()
      .catch(() => {})
      .finally(() => (this.loading = undefined))
    return this.loading
  }

  /** The active templates of which the shortcut, or a word of the title, begins with `query`; shortcuts first. */
  matching(query: string): Template[] {
    const text = query.toLowerCase()
    const rank = ({ shortcut, title }: Template): number =>
      shortcut === text ? 0 : shortcut.startsWith(text) ? 1 : title.toLowerCase().split(/\s+/).some((word) => word.startsWith(text)) ? 2 : 3
    return this.list
      .filter((template) => template.active && rank(template) < 3)
      .sort((a, b) => rank(a) - rank(b) || b.uses - a.uses || (a.shortcut < b.shortcut ? -1 : 1))
      .slice(0, MAX_MATCHES)
  }

  private async fetch(): Promise<void> {
    this.list = (await this.api.templates()).templates
    this.onChange()
  }
}

/** Find a slash with a shortcut directly before the cursor, at the beginning of the text or after white space. */
export function slashQuery(text: string, cursor: number): SlashQuery | undefined {
  const match = /(?:^|\s)\/([a-z0-9_-]*)$/i.exec(text.slice(0, cursor))
  return match ? { start: cursor - match[1]!.length - 1, end: cursor, query: match[1]! } : undefined
}

/** Replace the placeholders that have a value in `values`; the others stay. */
export function fillBlanks(text: string, values: Readonly<Record<string, string>>): string {
  return text.replace(PLACEHOLDER, (placeholder, name: string) => values[name]?.trim() || placeholder)
}

/** Replace a template's shortcut, if it is still at its place; else append the text. */
export function insertAt(current: string, { start, end }: SlashQuery, replaced: string, text: string): { text: string; cursor: number } {
  if (current.slice(start, end) !== replaced) {
    const appended = current && !/\s$/.test(current) ? `${current} ${text}` : current + text
    return { text: appended, cursor: appended.length }
  }
  return { text: current.slice(0, start) + text + current.slice(end), cursor: start + text.length }
}
