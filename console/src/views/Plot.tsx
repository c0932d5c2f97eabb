/** A bar chart of deliveries per minute. The bars stretch with the page, the labels do not. */

import { clock, number } from '../format'

const HEIGHT = 100
const BAR = 10

export function Plot({ points }: { points: { minute: string; count: number }[] }) {
  const max = Math.max(0, ...points.map(({ count }) => count))
  const total = points.reduce((sum, { count }) => sum + count, 0)
  const width = points.length * BAR
  const summary = `${number(total)} in all, at most ${number(max)} a minute`
  const marks = points.filter((_, n) => n % 15 === 0 || n === points.length - 1)
  return (
    <figure class="plot" data-testid="plot" data-total={total}>
      <svg
        viewBox={`0 0 ${width} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label={`Events delivered in each of the last ${points.length} minutes: ${summary}`}
      >
        {[0, HEIGHT / 2, HEIGHT].map((y) => <line key={y} x1="0" x2={width} y1={y} y2={y} />)}
        {points.map(({ minute, count }, n) => {
          const height = count ? Math.max(2, (count / max) * HEIGHT) : 0
          return (
            <rect key={minute} x={n * BAR + 1} y={HEIGHT - height} width={BAR - 2} height={height}>
              <title>{`${clock(minute)}: ${number(count)}`}</title>
            </rect>
          )
        })}
      </svg>
      <div class="scale" aria-hidden="true">{marks.map(({ minute }) => <span key={minute}>{clock(minute)}</span>)}</div>
      <figcaption class="quiet">{summary}</figcaption>
    </figure>
  )
}
