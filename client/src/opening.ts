/** Whether the desk is open: read when it is first asked for, again when that changes, and now and then. The answer also says who is there. */

import type { Desk } from './api.js'
import type { Core } from './core.js'
import type { DeskRead, StaffStatus } from './protocol.js'
import { keep } from './store.js'
import { createTimers, jitter } from './util.js'

/** Milliseconds after which it is read again: admins change the hours, and not every transport tells who comes and goes. */
const LASTS = 180_000
/** Milliseconds over which pages spread their reads after an opening, and after a lost connection. */
const SPREAD = 15_000

/** `present` are the members of staff by id, as frames change them. */
export function createOpening({ rest, isUsable, changed }: Core, present: Map<string, StaffStatus>) {
  const timers = createTimers()
  let known: Desk | undefined
  let due = true
  /** True after a lost connection, when many pages read at once. */
  let lost = false
  /** Counts reads: only the answer of the last one counts, and none of another person's. */
  let run = 0

  const expire = (): void => {
    due = true
    changed()
  }

  /** Who is there by the answer; frames that came during the call are newer. */
  const take = (staff: DeskRead['staff'], before: Map<string, StaffStatus>): void => {
    const fresh = new Map(staff.map((member) => [member.staffId, member]))
    for (const id of new Set([...before.keys(), ...fresh.keys()])) {
      if (present.get(id) !== before.get(id)) continue
      const member = fresh.get(id)
      if (member) present.set(id, keep(present.get(id), member))
      else present.delete(id)
    }
  }

  const load = async (): Promise<void> => {
    const own = run
    const before = new Map(present)
    let next = LASTS
    try {
      const { open, opensAt, closesAt, timezone, now, staff } = (await rest<DeskRead>('GET', '/api/gre-chat/desk')).data
      if (own !== run) return
      take(staff, before)
      known = keep(known, { open, opensAt, closesAt, timezone })
      // By the server's clock alone.
      const change = Date.parse((opensAt ?? closesAt)!) - Date.parse(now)
      next = Math.min(jitter(LASTS), change >= 0 ? change + Math.random() * SPREAD : LASTS)
    } catch {
      if (own !== run) return
    }
    timers.start('again', next, expire)
    changed()
  }

  return {
    /** What is known by now; reads it if it may have changed. */
    read(): Desk | undefined {
      if (!isUsable()) due = lost = true
      else if (due) {
        due = false
        run += 1
        timers.start('again', known && lost ? Math.random() * SPREAD : 0, () => void load())
        lost = false
      }
      return known
    },
    clear(): void {
      run += 1
      due = true
      known = undefined
      timers.clear()
    },
  }
}
