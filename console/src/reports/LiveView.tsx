/** The view *Live*: how many wait, for how long, and who is there with how many conversations. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { useChanges } from '../emitter'
import { initials, number } from '../format'
import type { Filter } from '../queue'
import type { ViewProps } from '../views/LoadedView'
import { Live } from './live'
import './live.css'
import type { LiveStaff } from './types'
import { duration, NOTHING } from './values'

/** Seconds after which a wait is shown as a warning, and as too long. */
const WAIT_WARN = 120
const WAIT_BAD = 600
const ORDER = { online: 0, away: 1, offline: 2 }

export function LiveView({ desk }: ViewProps) {
  const live = useMemo(() => new Live(desk), [desk])
  useChanges(live)
  const main = useRef<HTMLElement>(null)
  useLayoutEffect(() => main.current?.focus({ preventScroll: true }), [])
  useEffect(() => live.start(), [live])
  const { figures, error } = live
  const staff = figures ? [...figures.staff].sort((a, b) => ORDER[a.status] - ORDER[b.status] || b.open_sessions - a.open_sessions || nameOf(a).localeCompare(nameOf(b))) : []
  const here = staff.filter(({ status }) => status === 'online').length
  return (
    <main class="health live" id="main" ref={main} tabIndex={-1} data-testid="live" data-loaded={figures !== undefined}>
      <h1>Live</h1>
      {error !== '' && <div class="banner banner-warn" role="alert" data-testid="live-error">{error}{figures && ' The figures are older.'}</div>}
      {!figures && error === '' && <p class="empty" role="status">Loading …</p>}
      {figures && (
        <>
          <ul class="live-figures">
            <Figure desk={desk} id="live-open" label="Open" value={number(figures.open)} filter="open" />
            <Figure desk={desk} id="live-waiting" label="Waiting" value={number(figures.waiting)} filter="waiting" state={figures.waiting ? 'warn' : 'good'} />
            <Figure desk={desk} id="live-unassigned" label="Unassigned" value={number(figures.unassigned)} filter="unassigned" state={figures.unassigned ? 'warn' : 'good'} />
            <LongestWait desk={desk} live={live} />
          </ul>
          <section aria-labelledby="live-staff-title">
            <div class="row spread"><h2 id="live-staff-title">Staff</h2><span class="quiet" data-testid="live-here">{number(here)} online</span></div>
            {staff.length === 0 && <p class="quiet">Nobody is active staff.</p>}
            <ul class="live-staff">
              {staff.map((member) => <Member key={member.staff_id} member={member} />)}
            </ul>
          </section>
        </>
      )}
    </main>
  )
}

interface FigureProps {
  desk: Desk
  id: string
  label: string
  value: string
  filter: Filter
  state?: 'good' | 'warn' | 'bad'
}

/** A figure that leads to its conversations. */
function Figure({ desk, id, label, value, filter, state = 'good' }: FigureProps) {
  return (
    <li>
      <a class={`live-figure figure-${state}`} href="#" data-testid={id} data-state={state} onClick={() => desk.queue.setFilter(filter, '')}>
        <b>{value}</b>
        <span class="quiet">{label}</span>
      </a>
    </li>
  )
}

function LongestWait({ desk, live }: { desk: Desk; live: Live }) {
  const [, setTick] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => setTick((n) => n + 1), 1000)
    return () => clearInterval(timer)
  }, [])
  const wait = live.longestWait(desk.api.now())
  const state = wait === null ? 'good' : wait > WAIT_BAD ? 'bad' : wait > WAIT_WARN ? 'warn' : 'good'
  return <Figure desk={desk} id="live-longest" label="Longest wait" value={wait === null ? NOTHING : duration(wait)} filter="waiting" state={state} />
}

function Member({ member }: { member: LiveStaff }) {
  const { staff_id: id, status, open_sessions: open, max_sessions: max } = member
  const full = max !== null && open >= max
  return (
    <li class={`live-member is-${status}`} data-testid="live-member" data-staff-id={id} data-status={status} data-open={open} data-max={max ?? ''}>
      <span class="face" aria-hidden="true">{initials(nameOf(member))}</span>
      <span class="name" dir="auto">{nameOf(member)}</span>
      <span class="live-status"><span class={`dot dot-${status}`} aria-hidden="true" /> {status}</span>
      <span class="live-load">
        {max !== null && max > 0 && (
          <svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={`${open} of at most ${max} conversations`} class={full ? 'is-full' : ''}>
            <rect class="load-limit" width="100" height="8" rx="2" /><rect class="load-open" width={Math.min(100, (open / max) * 100)} height="8" rx="2" />
          </svg>
        )}
        <span>{number(open)}{max !== null && <span class="quiet"> of {number(max)}</span>}{full && <b class="badge">full</b>}</span>
      </span>
    </li>
  )
}

function nameOf({ display_name: name, staff_id: id }: LiveStaff): string {
  return name || id
}
