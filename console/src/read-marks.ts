/** What the user has read: the client's read marks (client/src/marks.ts), sent until the server has them, also without a socket. */

import { createMarks } from '../../client/src/marks'
import type { Rest } from '../../client/src/rest'
import type { Timeline } from '../../client/src/timeline'
import type { Api } from './api'

export type ReadMarks = ReturnType<typeof createMarks>

/** `open` returns the messages of the open conversation, `isUsable` whether the server can be reached. */
export function createReadMarks(api: Api, open: () => Timeline | undefined, isUsable: () => boolean): ReadMarks {
  const marks = new Map<string, number>()
  const rest = (async (method: string, path: string, body?: object) => ({ data: await api.call(method, path, body) })) as Rest
  const timelines = {
    values(): Timeline[] {
      const timeline = open()
      return timeline ? [timeline] : []
    },
  }
  return createMarks({ rest, isStaff: () => true, isUsable }, { markOf: (id) => marks.get(id) ?? 0, note: (id, upTo) => void marks.set(id, upTo) }, timelines)
}
