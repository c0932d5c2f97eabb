/**
 * Links of files for this reader: asked for when they are shown, many at a time, and again when they have ended. They are in
 * memory only.
 */

import { type Api, ApiError } from './api'
import { Emitter } from './emitter'
import type { TaskScope } from './scope'

export type Variant = Parameters<Api['attachmentLinks']>[1]

export interface FileLink {
  /** Missing while it is being asked for, and if there is none. */
  url?: string
  /** Why there is none; empty if there is one or it is being asked for. */
  error: string
}

interface Entry extends FileLink {
  /** Milliseconds since 1970, by the server's clock: from then on the link is asked for again. */
  dueAt: number
  /** True while it is being asked for. */
  asked: boolean
}

/** Links in one request: the server's limit. */
const BATCH = 100
/** Milliseconds in which wanted links are collected. */
const COLLECT = 30
/** Milliseconds before its end at which a link is not used any more. */
const MARGIN = 30_000
/** Milliseconds until a link is asked for again after a failure. */
const RETRY = 5000
const PENDING: FileLink = { error: '' }

/** It emits a change when links have arrived and when links have ended. */
export class FileLinks extends Emitter {
  private readonly entries = new Map<string, Entry>()
  private readonly wanted = new Map<Variant, Set<string>>()

  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
  ) {
    super()
  }

  /** The link of a file; it is asked for if it is missing or has ended. */
  get(id: string, variant: Variant): FileLink {
    const known = this.entries.get(keyOf(id, variant))
    const now = this.api.now()
    if (known && known.dueAt > now) return known
    if (!known?.asked) this.want(id, variant)
    // Until the next one is there, it can still be used.
    return known && (known.error || known.dueAt + MARGIN > now) ? known : PENDING
  }

  /** A link did not work: ask for another one. */
  renew(id: string, variant: Variant): void {
    this.entries.delete(keyOf(id, variant))
    this.emitChange()
  }

  private want(id: string, variant: Variant): void {
    if (!this.wanted.size) this.scope.schedule(COLLECT, () => this.request())
    const ids = this.wanted.get(variant) ?? new Set<string>()
    this.wanted.set(variant, ids.add(id))
  }

  private request(): void {
    for (const [variant, ids] of this.wanted) {
      const list = [...ids]
      for (let n = 0; n < list.length; n += BATCH) void this.load(list.slice(n, n + BATCH), variant)
    }
    this.wanted.clear()
  }

  private async load(ids: string[], variant: Variant): Promise<void> {
    for (const id of ids) this.entries.set(keyOf(id, variant), { ...PENDING, dueAt: -Infinity, ...this.entries.get(keyOf(id, variant)), asked: true })
    let nextAt = this.api.now() + RETRY
    try {
      const { urls } = await this.api.attachmentLinks(ids, variant)
      const retryAt = nextAt
      nextAt = Infinity
      for (const id of ids) {
        const answer = urls[id]
        const url = answer && 'url' in answer ? answer.url : undefined
        const endsAt = answer && 'url' in answer ? Date.parse(answer.expiresAt) - MARGIN : Infinity
        const dueAt = url ? Math.max(endsAt, retryAt) : Infinity
        this.entries.set(keyOf(id, variant), url ? { url, error: '', dueAt, asked: false } : { error: 'This file cannot be fetched.', dueAt, asked: false })
        nextAt = Math.min(nextAt, dueAt)
      }
    } catch (error) {
      const text = error instanceof ApiError ? error.message : 'The file cannot be fetched at the moment.'
      for (const id of ids) this.entries.set(keyOf(id, variant), { error: text, dueAt: nextAt, asked: false })
    }
    if (nextAt < Infinity) this.scope.schedule(nextAt - this.api.now(), this.emitChange)
    this.emitChange()
  }
}

const keyOf = (id: string, variant: Variant): string => `${variant}/${id}`
