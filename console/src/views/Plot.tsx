/** Sixty minutes as bars. */

import { clock, number } from '../format'

const WIDTH = 600
const HEIGHT = 120
const FOOT = 18

export function Plot({ points }: { points: { minute: string; count: number }[] }) {
  const most = Math.max(1, ...points.map(({ count }) => count))
  const all = points.reduce((sum, { count }) => sum + count, 0)
  const step = WIDTH / Math.max(1, points.length)
  const high = HEIGHT - FOOT - 12
  const said = `${number(all)} in all, at most ${number(most === 1 && !all ? 0 : most)} a minute`
  return (
    <figure class="plot" data-testid="plot" data-total={all}>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Events delivered in each of the last ${points.length} minutes: ${said}`}>
        <line x1="0" x2={WIDTH} y1={HEIGHT - FOOT} y2={HEIGHT - FOOT} />
        {points.map(({ minute, count }, n) => {
          const height = count ? Math.max(2, (count / most) * high) : 0
          return (
            <rect key={minute} x={n * step + 1} y={HEIGHT - FOOT - height} width={Math.max(1, step - 2)} height={height} rx="1.5">
              <title>{`${clock(minute)}: ${number(count)}`}</title>
            </rect>
          )
        })}
        {points.map(({ minute }, n) =>
          n % 15 === 0 || n === points.length - 1 ? (
            <text key={minute} x={n === points.length - 1 ? WIDTH : n * step} y={HEIGHT - 4} text-anchor={n === points.length - 1 ? 'end' : 'start'}>{clock(minute)}</text>
          ) : null,
        )}
      </svg>
      <figcaption class="quiet">{said}</figcaption>
    </figure>
  )
}
