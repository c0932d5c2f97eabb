/** The settings of the desk, for admins: assignment and opening hours. */

import type { Desk } from '../desk'
import { AssignmentSettings } from './AssignmentSettings'
import { HoursSettings } from './HoursSettings'

export function SettingsView({ desk }: { desk: Desk }) {
  return (
    <main class="health settings" id="main" data-testid="settings" tabIndex={-1}>
      <h1>Settings</h1>
      {desk.me?.role !== 'admin' ? <p>Only admins change the settings.</p> : (
        <>
          <AssignmentSettings desk={desk} />
          <HoursSettings desk={desk} />
        </>
      )}
    </main>
  )
}
