/** The goals for reply times: the share of its goal for which a player has waited. Without goals nothing is computed. */

import type { Api } from './api'
import { ApiError } from './api'
import { OpenTime } from './open-time'
import type { TaskScope } from './scope'
import type { QueuedSession, Settings } from './types'

export interface GoalState {
  /** `paused`: the goal counts open hours only, and the desk is closed. */
  state: 'running' | 'paused' | 'over'
  /** The share of the goal that has passed, 0 to 1. */
  share: number
  /** "3 of 5 minutes", "2 minutes over the goal". */
  text: string
}

/** Milliseconds. */
const TICK = 1000
const RELOAD_INTERVAL = 10 * 60_000
const RETRY_DELAY = 30_000
/** A unit in milliseconds, its name, and the shortest goal that is written in it. */
const UNITS: [number, string, number][] = [
  [86_400_000, 'day', 2 * 86_400_000],
  [3_600_000, 'hour', 2 * 3_600_000],
  [60_000, 'minute', 2 * 60_000],
  [1000, 'second', 0],
]

export class Goals {
  private settings: Settings | undefined
  private openTime: OpenTime | undefined
  private readonly listeners = new Set<() => void>()
  private ticker: number | undefined
  private reloadTimer: number | undefined

  constructor(
    private readonly api: Api,
    private readonly scope: TaskScope,
    private readonly onChange: () => void,
    /** Called when a goal for the first reply was set: only now does the list say where staff have replied. */
    private readonly onFirstReplyGoal: () => void,
  ) {}

  /** Load the goals again, now and from time to time: an admin may change them. After a failure the loaded ones stay. */
  async load(): Promise<void> {
    this.scheduleLoad(RELOAD_INTERVAL)
    try {
      const { settings } = await this.api.settings()
      const counted = (settings.first_reply_goal ?? settings.reply_goal) !== null && settings.goals_in_hours ? settings.hours : null
      this.openTime = counted === null ? undefined : await this.loadOpenTime(counted)
      const isNew = settings.first_reply_goal !== null && this.settings?.first_reply_goal === null
      this.settings = settings
      if (isNew) this.onFirstReplyGoal()
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      this.scheduleLoad(RETRY_DELAY)
    }
    this.onChange()
  }

  private scheduleLoad(delay: number): void {
    this.scope.cancel(this.reloadTimer)
    this.reloadTimer = this.scope.schedule(delay, () => void this.load())
  }

  /** The state of a session's goal at a moment (milliseconds since 1970); undefined if it has none or does not wait. */
  stateOf({ waiting_since: since, replied }: QueuedSession, now: number): GoalState | undefined {
    if (!this.settings || !since) return undefined
    const { first_reply_goal: first, reply_goal: later } = this.settings
    const seconds = replied ? later : (first ?? later)
    if (seconds === null) return undefined
    const start = Date.parse(since)
    const { openTime } = this
    return openTime
      ? goalState(openTime.between(start, now), seconds * 1000, openTime.isOpen(now))
      : goalState(Math.max(0, now - start), seconds * 1000, true)
  }

  /** Call a function each second, while the page is visible, until the returned function is called. */
  onTick(listener: () => void): () => void {
    this.listeners.add(listener)
    this.ticker ??= this.scheduleTick()
    return () => void this.listeners.delete(listener)
  }

  private scheduleTick(): number | undefined {
    return this.scope.schedule(TICK, () => {
      if (!document.hidden) for (const listener of this.listeners) listener()
      this.ticker = this.listeners.size ? this.scheduleTick() : undefined
    })
  }

  /** Undefined, so that all time counts, if the hours were deleted or the browser does not know their time zone. */
  private async loadOpenTime(name: string): Promise<OpenTime | undefined> {
    const hours = (await this.api.hours()).hours.find((entry) => entry.name === name)
    try {
      return hours && new OpenTime(hours)
    } catch {
      return undefined
    }
  }
}

/** The state of a goal of which so many milliseconds have passed. */
export function goalState(passed: number, goal: number, isOpen: boolean): GoalState {
  const [unit, name] = UNITS.find(([, , shortest]) => goal >= shortest)!
  if (passed >= goal) {
    const over = Math.floor((passed - goal) / unit)
    const text = over ? counted(over, name) : `less than a ${name}`.replace('a hour', 'an hour')
    return { state: 'over', share: 1, text: `${text} over the goal` }
  }
  const text = `${Math.floor(passed / unit)} of ${counted(Math.round((goal / unit) * 10) / 10, name)}`
  return { state: isOpen ? 'running' : 'paused', share: passed / goal, text: isOpen ? text : `${text}, paused while the desk is closed` }
}

function counted(count: number, unit: string): string {
  return `${count} ${unit}${count === 1 ? '' : 's'}`
}
