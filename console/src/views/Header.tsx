/** The bar above: the two views, the connection, who is there, and the page's own switches. */

import { useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { initials } from '../format'
import type { Link } from '../socket'
import { sessionHref } from '../route'
import { nextTheme, theme } from '../theme'
import type { Colleague, Presence } from '../types'
import { Icon } from './icons'

const LINKS: Record<Link, string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  offline: 'No network',
  stopped: 'Disconnected',
}
const STATUSES: [Presence, string][] = [['online', 'Online'], ['away', 'Away'], ['offline', 'Offline']]
const THEMES = { auto: 'as the system', light: 'light', dark: 'dark' }
const SHOWN = 5

interface Given {
  desk: Desk
  view: 'desk' | 'health'
  onSignOut: () => void
  onHelp: () => void
}

export function Header({ desk, view, onSignOut, onHelp }: Given) {
  const [shade, setShade] = useState(theme())
  const { bell, me } = desk
  const turn = (): void => {
    nextTheme()
    setShade(theme())
  }
  return (
    <header class="bar">
      <nav aria-label="Views">
        <a href="#" data-testid="nav-conversations" aria-current={view === 'desk' ? 'page' : undefined}>Conversations</a>
        <a href="#health" data-testid="nav-health" aria-current={view === 'health' ? 'page' : undefined}>Health</a>
      </nav>
      <span class={`link link-${desk.link}`} role="status" data-testid="connection" data-state={desk.link}>{LINKS[desk.link]}</span>
      <Unsent desk={desk} />
      <span class="space" />
      <Colleagues desk={desk} />
      {me && (
        <label class="status">
          <span class="unseen">My status</span>
          <span class={`dot dot-${mine(desk)}`} aria-hidden="true" />
          <select
            data-testid="my-status"
            value={mine(desk)}
            onChange={(event) => desk.setStatus(event.currentTarget.value as Presence)}
          >
            {STATUSES.map(([value, label]) => <option key={value} value={value}>{label}</option>)}
          </select>
        </label>
      )}
      <button
        type="button" class="tool" data-testid="notify" data-rung={bell.rung} aria-pressed={bell.on}
        aria-label="Sound and notifications" title={`Sound and notifications: ${bell.on ? 'on' : 'off'}`}
        onClick={() => void bell.turn(!bell.on)}
      >
        <Icon name={bell.on ? 'bell' : 'bellOff'} />
      </button>
      <button
        type="button" class="tool" data-testid="theme" data-theme={shade} onClick={turn}
        aria-label={`Colours: ${THEMES[shade]}`} title={`Colours: ${THEMES[shade]}`}
      >
        <Icon name={shade === 'auto' ? 'auto' : shade === 'light' ? 'sun' : 'moon'} />
      </button>
      <button type="button" class="tool wide-only" data-testid="help" onClick={onHelp} aria-label="Keyboard" title="Keyboard (?)">
        <Icon name="help" />
      </button>
      <button
        type="button" class="tool" data-testid="sign-out" onClick={onSignOut}
        aria-label={me ? `Sign out ${desk.nameOf(me.staffId)}` : 'Sign out'} title={me ? `Sign out ${desk.nameOf(me.staffId)}` : 'Sign out'}
      >
        <Icon name="out" />
      </button>
    </header>
  )
}

/** Replies that failed, wherever one is: a link to the first of them. */
function Unsent({ desk }: { desk: Desk }) {
  const [session] = desk.outbox.failed
  if (session === undefined) return null
  return <a class="link link-offline" href={sessionHref(session)} data-testid="unsent-count">{desk.outbox.failedCount} not sent</a>
}

function mine(desk: Desk): Presence {
  return (desk.me && desk.staff.get(desk.me.staffId)?.status) ?? 'online'
}

function Colleagues({ desk }: { desk: Desk }) {
  const others = [...desk.staff.values()].filter((one) => one.staffId !== desk.me?.staffId && one.status !== 'offline')
  others.sort((a, b) => (a.status === b.status ? name(a).localeCompare(name(b)) : a.status === 'online' ? -1 : 1))
  if (!others.length) return null
  return (
    <ul class="colleagues" aria-label="Colleagues who are here" data-testid="colleagues">
      {others.slice(0, SHOWN).map((one) => (
        <li key={one.staffId} data-testid="colleague" data-staff-id={one.staffId} data-status={one.status} title={`${name(one)}: ${one.status}`}>
          <span aria-hidden="true">{initials(name(one))}</span>
          <span class={`dot dot-${one.status}`} aria-hidden="true" />
          <span class="unseen">{name(one)}, {one.status}</span>
        </li>
      ))}
      {others.length > SHOWN && <li class="more">+{others.length - SHOWN}</li>}
    </ul>
  )
}

function name(one: Colleague): string {
  return one.displayName || one.staffId
}
