/** The figures of a report in groups: each has a chart, a table and its explanations (the definitions of docs/reports.md). */

import type { FigureRow, Metric, Spread } from './types'

export type Unit = 'count' | 'duration' | 'score' | 'share'

export interface Column {
  id: string
  label: string
  unit: Unit
  /** Whose sessions a cell lists. */
  metric: Metric
  meaning: string
  /** True if the chart shows it. */
  drawn: boolean
  value(row: FigureRow): number | null
}

export type GroupId = 'conversations' | 'first_reply' | 'reply' | 'time_to_close' | 'handle' | 'messages' | 'rating' | 'goal'

export interface Group {
  id: GroupId
  title: string
  meaning: string
  columns: Column[]
  /** The id of the column whose total stands for the group. */
  main: string
}

interface Counted {
  id: Metric
  label: string
  meaning: string
  drawn?: boolean
}

function count({ id, label, meaning, drawn = true }: Counted): Column {
  return { id, label, meaning, drawn, unit: 'count', metric: id, value: (row) => countOf(id, row) }
}

function durations(id: 'first_reply' | 'reply' | 'time_to_close' | 'handle', title: string, meaning: string, counted: string): Group {
  const column = (name: keyof Spread, label: string, text: string): Column => ({
    id: name, label, meaning: text, drawn: name !== 'n' && name !== 'max', unit: name === 'n' ? 'count' : 'duration', metric: id, value: (row) => row[id][name],
  })
  return {
    id, title, meaning, main: 'median',
    columns: [
      column('median', 'Median', 'half of them took no longer'),
      column('mean', 'Mean', 'their sum, divided by their number'),
      column('p90', 'p90', 'nine of ten took no longer'),
      column('max', 'Longest', 'the longest of them'),
      column('n', 'Number', counted),
    ],
  }
}

export const GROUPS: Group[] = [
  {
    id: 'conversations', title: 'Conversations', main: 'sessions_opened',
    meaning: 'A conversation lasts from its opening, or reopening, to its closing. By person: whose it was at that time.',
    columns: [
      count({ id: 'sessions_opened', label: 'Opened', meaning: 'opened or reopened in this time' }),
      count({ id: 'sessions_closed', label: 'Closed', meaning: 'closed in this time, by whomever' }),
      count({ id: 'closed_idle', label: 'Closed idle', meaning: 'of these, closed by the server because nobody wrote', drawn: false }),
      count({ id: 'missed', label: 'Missed', meaning: 'closed with a question, without any answer of staff' }),
      count({ id: 'dropped', label: 'Dropped', meaning: 'closed with a question open, after staff had answered another' }),
      count({ id: 'transfers', label: 'Handed over', meaning: 'times that somebody handed one over; by person: who handed it over', drawn: false }),
    ],
  },
  durations(
    'first_reply', 'First reply',
    'From the first question of a conversation to the first answer of staff. Conversations that staff began have none. Automatic messages do not count as answers.',
    'answered first questions; by person: who answered',
  ),
  durations(
    'reply', 'Each reply',
    'From each question to the next answer of staff. A question begins with the first message that is not answered; further ones of the player belong to it.',
    'answered questions; by person: who answered',
  ),
  durations(
    'time_to_close', 'Time to close',
    'From the player’s first message to the closing. Conversations that were closed idle, or in which the player did not write, are not in it.',
    'conversations that were closed so; by person: whose they were at the closing',
  ),
  durations(
    'handle', 'Handling',
    'How long a conversation was assigned to a person, from the assignment to its end: the closing, a handing over or a release.',
    'assignments that ended',
  ),
  {
    id: 'messages', title: 'Messages', main: 'messages_player',
    meaning: 'Messages that were sent in this time, by their senders. By person: who wrote; the players’ and the automatic ones are nobody’s.',
    columns: [
      count({ id: 'messages_player', label: 'Of players', meaning: 'written by players' }),
      count({ id: 'messages_staff', label: 'Of staff', meaning: 'written by people' }),
      count({ id: 'messages_auto', label: 'Automatic', meaning: 'auto-replies and other messages of the system' }),
      count({ id: 'players', label: 'Players', meaning: 'different players who wrote; the total counts each once' }),
    ],
  },
  {
    id: 'rating', title: 'Rating', main: 'rating_mean',
    meaning: 'Players rate a conversation with one to five stars after it was closed, if that is switched on. By person: whose it was at the closing.',
    columns: [
      { id: 'rating_mean', label: 'Mean', meaning: 'the mean of the stars', unit: 'score', metric: 'rating', drawn: true, value: (row) => row.rating.mean },
      { id: 'rating_good', label: 'Good', meaning: 'the share of four and five stars', unit: 'share', metric: 'rating', drawn: false, value: (row) => row.rating.good_share },
      { id: 'rating', label: 'Rated', meaning: 'ratings given in this time', unit: 'count', metric: 'rating', drawn: false, value: (row) => row.rating.answered },
      { id: 'rating_asked', label: 'Asked', meaning: 'conversations closed in this time whose player was asked', unit: 'count', metric: 'rating_asked', drawn: false, value: (row) => row.rating.asked },
    ],
  },
  {
    id: 'goal', title: 'Within the goal', main: 'goal_share',
    meaning: 'Answered questions that had a goal when they were asked, and those of them that were answered in time. By person: who answered.',
    columns: [
      { id: 'goal_share', label: 'Share', meaning: 'the share that was answered in time', unit: 'share', metric: 'within_goal', drawn: true, value: ({ within_goal: { n, met } }) => (n ? met / n : null) },
      { id: 'goal_met', label: 'In time', meaning: 'answered before the goal was over', unit: 'count', metric: 'within_goal', drawn: false, value: (row) => row.within_goal.met },
      { id: 'within_goal', label: 'Answered', meaning: 'answered questions with a goal', unit: 'count', metric: 'within_goal', drawn: false, value: (row) => row.within_goal.n },
    ],
  },
]

const METRICS = new Set<string>(GROUPS.flatMap(({ columns }) => columns.map(({ metric }) => metric)))

export function isMetric(text: string): text is Metric {
  return METRICS.has(text)
}

/** The number of a metric: so many items does its cell list. */
export function countOf(metric: Metric, row: FigureRow): number {
  switch (metric) {
    case 'first_reply': case 'reply': case 'time_to_close': case 'handle': case 'within_goal': return row[metric].n
    case 'messages_player': return row.messages.player
    case 'messages_staff': return row.messages.staff
    case 'messages_auto': return row.messages.auto
    case 'rating': return row.rating.answered
    case 'rating_asked': return row.rating.asked
    default: return row[metric]
  }
}

/** The name of a metric for the user: of its count, where a group has several columns of it. */
export function metricLabel(metric: Metric): string {
  const group = GROUPS.find(({ columns }) => columns.some((column) => column.metric === metric))!
  const column = group.columns.find(({ id }) => id === metric)
  return column ? `${group.title}: ${column.label.toLowerCase()}` : group.title
}
