/** The staff: their names and presence. */

import type { Api } from './api'
import type { Presence, StaffMember } from './types'

export class StaffList {
  /** By staff id. */
  readonly members = new Map<string, StaffMember>()

  constructor(
    private readonly api: Api,
    /** Runs an action, and reports its error to the user. */
    private readonly attempt: (action: () => Promise<void>) => Promise<boolean>,
    private readonly onChange: () => void,
  ) {}

  async load(): Promise<void> {
    await this.attempt(async () => {
      for (const member of (await this.api.staff()).staff) this.members.set(member.staffId, member)
    })
    this.onChange()
  }

  applyStatus(staffId: string, displayName: string | null, status: Presence): void {
    const known = this.members.get(staffId)
    if (!known) void this.load()
    else this.members.set(staffId, { ...known, displayName, status })
    this.onChange()
  }

  nameOf(staffId: string): string {
    return this.members.get(staffId)?.displayName || staffId
  }
}
