/** Which rows of a long list are in the document. Pure arithmetic over heights in pixels. */

/** Where each row begins, and the end of the last; rows that were not measured yet count as `guess`. */
export function offsets(keys: readonly string[], heights: ReadonlyMap<string, number>, guess: number): Float64Array {
  const found = new Float64Array(keys.length + 1)
  for (let n = 0; n < keys.length; n += 1) found[n + 1] = found[n]! + (heights.get(keys[n]!) ?? guess)
  return found
}

/** Put measured heights of rows from `first` on right in `where`; whether any was another one. */
export function measure(where: Float64Array, first: number, heights: readonly number[]): boolean {
  let shift = 0
  let changed = false
  let old = where[first] ?? 0
  for (let n = first + 1; n < where.length; n += 1) {
    const height = heights[n - first - 1]
    const end = where[n]!
    if (height !== undefined && Math.abs(height - (end - old)) > 0.01) {
      shift += height - (end - old)
      changed = true
    }
    old = end
    where[n] = end + shift
  }
  return changed
}

/** The row at a height. */
export function rowAt(where: Float64Array, height: number): number {
  let low = 0
  let high = where.length - 2
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (where[middle]! <= height) low = middle
    else high = middle - 1
  }
  return Math.max(0, low)
}

/** The rows between two heights, as [first, one after the last]. */
export function rowsBetween(where: Float64Array, top: number, bottom: number): [number, number] {
  if (where.length < 2) return [0, 0]
  return [rowAt(where, Math.max(0, top)), rowAt(where, Math.max(0, bottom)) + 1]
}
