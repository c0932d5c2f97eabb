/** The totals of all groups of figures, the median first; each leads to its chart and table. */

import { number } from '../format'
import { GROUPS, type Group } from './figures'
import { type ReportForm, reportHref } from './form'
import type { FigureRow } from './types'
import { valueText } from './values'

export function Totals({ form, total }: { form: ReportForm; total: FigureRow }) {
  return (
    <nav aria-label="Figures">
      <ul class="totals">
        {GROUPS.map((group) => {
          const main = group.columns.find(({ id }) => id === group.main)!
          const value = main.value(total)
          return (
            <li key={group.id}>
              <a class="total" href={reportHref({ ...form, group: group.id, cell: undefined })} data-testid="total" data-group={group.id} data-value={value ?? ''} aria-current={form.group === group.id ? 'true' : undefined}>
                <span class="total-title">{group.title}{main.id === 'median' && <span class="quiet">, median</span>}</span>
                <b>{valueText(value, main.unit)}</b>
                <span class="quiet parts">{detailsOf(group, total).map((text) => <span key={text}>{text}</span>)}</span>
              </a>
            </li>
          )
        })}
      </ul>
    </nav>
  )
}

/** The other figures of a group, in a few words each. */
function detailsOf({ id, columns }: Group, total: FigureRow): string[] {
  const part = (name: string): string => {
    const column = columns.find((item) => item.id === name)!
    return valueText(column.value(total), column.unit)
  }
  switch (id) {
    case 'conversations': return ['opened', `${part('sessions_closed')} closed`, `${part('missed')} missed`, `${part('dropped')} dropped`]
    case 'messages': return [`of ${number(total.players)} players`, `${part('messages_staff')} of staff`, `${part('messages_auto')} automatic`]
    case 'rating': return ['of 5', `${part('rating_good')} good`, `${part('rating')} rated, ${part('rating_asked')} asked`]
    case 'goal': return [`${part('goal_met')} of ${part('within_goal')} in time`]
    default: return [`mean ${part('mean')}`, `p90 ${part('p90')}`, `longest ${part('max')}`, `${part('n')} in all`]
  }
}
