/** Links of files for this reader: the client's (client/src/links.ts), for views that are rendered again when one has arrived or ended. */

import { createLinks } from '../../client/src/links'
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

/** Milliseconds until a link is asked for again after a failure. */
const RETRY = 5000
const PENDING: FileLink = { error: '' }

/** It emits a change when links have arrived and when links have ended. */
export class FileLinks extends Emitter {
  /** `dueAt`: milliseconds since 1970, by the server's clock; from then on the link is asked for again. */
  private readonly known = new Map<string, { link: FileLink; dueAt: number }>()
  private readonly links: ReturnType<typeof createLinks>

  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
  ) {
    super()
    this.links = createLinks(async (ids, variant) => (await api.attachmentLinks(ids, variant as Variant)).urls, () => api.now())
  }

  /** The link of a file; it is asked for if it is missing or has ended. Until the next one is there, the one before is used. */
  get(id: string, variant: Variant): FileLink {
    const key = keyOf(id, variant)
    const { link, dueAt } = this.known.get(key) ?? { link: PENDING, dueAt: 0 }
    if (dueAt > this.api.now()) return link
    this.known.set(key, { link, dueAt: Infinity })
    void this.load(id, variant)
    return link
  }

  /** A link did not work: ask for another one. */
  renew(id: string, variant: Variant): void {
    this.links.forget(id, variant)
    this.known.delete(keyOf(id, variant))
    this.emitChange()
  }

  private async load(id: string, variant: Variant): Promise<void> {
    const retryAt = this.api.now() + RETRY
    let link: FileLink
    let dueAt = retryAt
    try {
      const { url, until } = await this.links.get(id, variant)
      link = { url, error: '' }
      dueAt = Math.max(until, retryAt)
    } catch (error) {
      const { status, message } = error as { status: number; message: string }
      link = { error: message }
      if (status === 404 && !(error instanceof ApiError)) dueAt = Infinity
    }
    this.known.set(keyOf(id, variant), { link, dueAt })
    if (dueAt < Infinity) this.scope.schedule(dueAt - this.api.now(), this.emitChange)
    this.emitChange()
  }
}

const keyOf = (id: string, variant: Variant): string => `${variant}/${id}`
