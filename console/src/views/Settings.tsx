/** The settings: templates for all staff; assignment, opening hours and auto-replies for admins. */

import type { Desk } from '../desk'
import { AssignmentSettings } from './AssignmentSettings'
import { AutoReplySettings } from './AutoReplySettings'
import { HoursSettings } from './HoursSettings'
import { TemplateSettings } from './TemplateSettings'

export function SettingsView({ desk }: { desk: Desk }) {
  return (
    <main class="health settings" id="main" data-testid="settings" tabIndex={-1}>
      <h1>Settings</h1>
      {desk.me && <TemplateSettings desk={desk} />}
      {desk.me?.role === 'admin' && (
        <>
          <AssignmentSettings desk={desk} />
          <HoursSettings desk={desk} />
          <AutoReplySettings desk={desk} />
        </>
      )}
    </main>
  )
}
