/** How long a session's player has waited; if there is a goal, as a ring that fills, too. */

import { useEffect, useState } from 'preact/hooks'
import type { Desk } from '../desk'
import { full, span } from '../format'
import type { GoalState } from '../goals'
import type { QueuedSession } from '../types'

/** Milliseconds after which the waiting time is shown as a warning, and as too long, if there is no goal. */
const WAIT_WARN = 2 * 60_000
const WAIT_BAD = 10 * 60_000
/** The share of a goal from which on it is shown as a warning. */
const GOAL_WARN = 0.75
/** The steps in which a ring fills. */
const STEPS = 40

export function WaitingTime({ desk, session, since }: { desk: Desk; session: QueuedSession; since: string }) {
  const [, setShown] = useState('')
  const now = desk.api.now()
  const waited = now - Date.parse(since)
  const goal = desk.goals.stateOf(session, now)
  const hasGoal = goal !== undefined
  useEffect(() => {
    if (!hasGoal) return undefined
    return desk.goals.onTick(() => {
      const at = desk.api.now()
      const state = desk.goals.stateOf(session, at)
      // Rendered again only if that changes what is shown.
      setShown(`${state?.text} ${state && stepOf(state)} ${span(at - Date.parse(since))}`)
    })
  }, [desk, session, since, hasGoal])
  return (
    <span class={`waits ${goal ? goalClass(goal) : waited > WAIT_BAD ? 'waits-bad' : waited > WAIT_WARN ? 'waits-warn' : ''}`} data-testid="waiting" title={`Waits since ${full(since)}`}>
      {goal && <Ring goal={goal} />}
      <span class="visually-hidden">waits for </span>{span(waited)}
    </span>
  )
}

/** Its shape says the state too: an arc while the goal runs, two bars in it while it is paused, a disc with “!” when it is over. */
function Ring({ goal }: { goal: GoalState }) {
  return (
    <svg class={`goal goal-${goal.state}`} viewBox="0 0 16 16" role="img" aria-label={goal.text} data-testid="goal" data-state={goal.state} data-step={stepOf(goal)}>
      <title>{goal.text}</title>
      <circle cx="8" cy="8" r="6" />
      {goal.state !== 'over' && <circle class="goal-passed" cx="8" cy="8" r="6" pathLength={STEPS} stroke-dasharray={`${stepOf(goal)} ${STEPS}`} transform="rotate(-90 8 8)" />}
      {goal.state !== 'running' && <path d={goal.state === 'over' ? 'M8 4.500v4M8 11.200v.1' : 'M6.700 6v4M9.300 6v4'} />}
    </svg>
  )
}

function stepOf(goal: GoalState): number {
  return Math.floor(goal.share * STEPS)
}

function goalClass({ state, share }: GoalState): string {
  if (state === 'over') return 'waits-bad'
  return state === 'running' && share >= GOAL_WARN ? 'waits-warn' : ''
}
