/** The settings: templates for all staff; assignment, opening hours and auto-replies for admins. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { AssignmentSettings } from './AssignmentSettings'
import { AutoReplySettings } from './AutoReplySettings'
import { HoursSettings } from './HoursSettings'
import { TemplateSettings } from './TemplateSettings'

export function SettingsView({ desk }: { desk: Desk }) {
  /** Grows when opening hours or the settings of the desk are saved, which other sections show, too. */
  const [revision, setRevision] = useState(0)
  const onChanged = (): void => setRevision((n) => n + 1)
  return (
    <main class="health settings" id="main" data-testid="settings" tabIndex={-1}>
      <h1>Settings</h1>
      {desk.me && <TemplateSettings desk={desk} />}
      {desk.me?.role === 'admin' && (
        <>
          <AssignmentSettings desk={desk} revision={revision} onChanged={onChanged} />
          <HoursSettings desk={desk} onChanged={onChanged} />
          <AutoReplySettings desk={desk} revision={revision} />
        </>
      )}
    </main>
  )
}
