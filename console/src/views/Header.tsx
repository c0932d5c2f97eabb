/** The top bar: navigation, connection state, colleagues, and the user's settings. */

import { useState } from 'preact/hooks'
import type { ConnectionState } from '../connection'
import type { Desk } from '../desk'
import { initials } from '../format'
import { type Route, sessionHref } from '../route'
import { currentTheme, cycleTheme } from '../theme'
import type { StaffMember, Presence } from '../types'
import { Icon } from './icons'

const CONNECTION_LABELS: Record<ConnectionState, string> = {
  connecting: 'Connecting',
  live: 'Live',
  polling: 'Live, with delay',
  reconnecting: 'Reconnecting',
  offline: 'No network',
  stopped: 'Disconnected',
}
const STATUSES: [Presence, string][] = [['online', 'Online'], ['away', 'Away'], ['offline', 'Offline']]
const THEME_LABELS = { auto: 'as the system', light: 'light', dark: 'dark' }
const VIEWS = [['conversations', 'Conversations', '#'], ['live', 'Live', '#live'], ['reports', 'Reports', '#reports'], ['health', 'Health', '#health']] as const
const MAX_COLLEAGUES = 5

interface Props {
  desk: Desk
  view: Route['view']
  onSignOut: () => void
  onHelp: () => void
}

export function Header({ desk, view, onSignOut, onHelp }: Props) {
  const [theme, setTheme] = useState(currentTheme())
  const { notifier, me } = desk
  const changeTheme = (): void => {
    cycleTheme()
    setTheme(currentTheme())
  }
  return (
    <header class="bar">
      <nav aria-label="Views">
        {VIEWS.map(([name, label, href]) => (
          <a key={name} href={href} data-testid={`nav-${name}`} title={label} aria-current={view === (name === 'conversations' ? 'desk' : name) ? 'page' : undefined}>
            <Icon name={name} /><span>{label}</span>
          </a>
        ))}
      </nav>
      <span class={`link link-${desk.connection}`} role="status" data-testid="connection" data-state={desk.connection}>{CONNECTION_LABELS[desk.connection]}</span>
      <FailedReplies desk={desk} />
      <span class="space" />
      <Colleagues desk={desk} />
      {me && (
        <label class="status">
          <span class="visually-hidden">My status</span>
          <span class={`dot dot-${myPresence(desk)}`} aria-hidden="true" />
          <select
            data-testid="my-status"
            value={myPresence(desk)}
            onChange={(event) => desk.setStatus(event.currentTarget.value as Presence)}
          >
            {STATUSES.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
      )}
      <button
        type="button" class="tool" data-testid="notify" data-notifications={notifier.count} aria-pressed={notifier.enabled}
        aria-label="Sound and notifications" title={`Sound and notifications: ${notifier.enabled ? 'on' : 'off'}`}
        onClick={() => void notifier.setEnabled(!notifier.enabled)}
      >
        <Icon name={notifier.enabled ? 'bell' : 'bellOff'} />
      </button>
      <button
        type="button" class="tool" data-testid="theme" data-theme={theme} onClick={changeTheme}
        aria-label={`Colours: ${THEME_LABELS[theme]}`} title={`Colours: ${THEME_LABELS[theme]}`}
      >
        <Icon name={theme === 'auto' ? 'auto' : theme === 'light' ? 'sun' : 'moon'} />
      </button>
      <a class="tool" href="#settings" data-testid="nav-settings" aria-label="Settings" title="Settings" aria-current={view === 'settings' ? 'page' : undefined}>
        <Icon name="settings" />
      </a>
      <button type="button" class="tool wide-only" data-testid="help" onClick={onHelp} aria-label="Keyboard" title="Keyboard (?)">
        <Icon name="help" />
      </button>
      <button
        type="button" class="tool" data-testid="sign-out" onClick={onSignOut}
        aria-label={me ? `Sign out ${desk.staffName(me.staffId)}` : 'Sign out'} title={me ? `Sign out ${desk.staffName(me.staffId)}` : 'Sign out'}
      >
        <Icon name="out" />
      </button>
    </header>
  )
}

/** The number of failed replies and notes, as a link to the first one's session. */
function FailedReplies({ desk }: { desk: Desk }) {
  const { failed } = desk.outgoing
  if (!failed[0]) return null
  return <a class="link link-offline" href={sessionHref(failed[0].sessionId)} data-testid="unsent-count">{failed.length} not sent</a>
}

function myPresence(desk: Desk): Presence {
  return (desk.me && desk.staff.get(desk.me.staffId)?.status) ?? 'online'
}

function Colleagues({ desk }: { desk: Desk }) {
  const others = [...desk.staff.values()].filter((member) => member.staffId !== desk.me?.staffId && member.status !== 'offline')
  others.sort((a, b) => (a.status === b.status ? displayName(a).localeCompare(displayName(b)) : a.status === 'online' ? -1 : 1))
  if (!others.length) return null
  return (
    <ul class="colleagues" aria-label="Colleagues who are here" data-testid="colleagues">
      {others.slice(0, MAX_COLLEAGUES).map((member) => (
        <li key={member.staffId} data-testid="colleague" data-staff-id={member.staffId} data-status={member.status} title={`${displayName(member)}: ${member.status}`}>
          <span aria-hidden="true">{initials(displayName(member))}</span>
          <span class={`dot dot-${member.status}`} aria-hidden="true" />
          <span class="visually-hidden">{displayName(member)}, {member.status}</span>
        </li>
      ))}
      {others.length > MAX_COLLEAGUES && <li class="more">+{others.length - MAX_COLLEAGUES}</li>}
    </ul>
  )
}

function displayName(member: StaffMember): string {
  return member.displayName || member.staffId
}
