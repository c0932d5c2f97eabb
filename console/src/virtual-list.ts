/** Virtual scrolling: the rows of a long list that must be in the document. Pure functions; heights are in pixels. */

/** The top of each row and the end of the last; a row without a measured height has `defaultHeight`. */
export function rowOffsets(keys: readonly string[], heights: ReadonlyMap<string, number>, defaultHeight: number): Float64Array {
  const result = new Float64Array(keys.length + 1)
  for (let n = 0; n < keys.length; n += 1) result[n + 1] = result[n]! + (heights.get(keys[n]!) ?? defaultHeight)
  return result
}

/** Correct `offsets` in place by the measured heights of the rows from `first` on; return true if a height differed. */
export function applyHeights(offsets: Float64Array, first: number, heights: readonly number[]): boolean {
  let shift = 0
  let changed = false
  let previousEnd = offsets[first] ?? 0
  for (let n = first + 1; n < offsets.length; n += 1) {
    const height = heights[n - first - 1]
    const end = offsets[n]!
    if (height !== undefined && Math.abs(height - (end - previousEnd)) > 0.01) {
      shift += height - (end - previousEnd)
      changed = true
    }
    previousEnd = end
    offsets[n] = end + shift
  }
  return changed
}

/** The index of the row at a position. */
export function rowAt(offsets: Float64Array, position: number): number {
  let low = 0
  let high = offsets.length - 2
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (offsets[middle]! <= position) low = middle
    else high = middle - 1
  }
  return Math.max(0, low)
}

/** The rows between two positions, as [first, last + 1]. */
export function rowsBetween(offsets: Float64Array, top: number, bottom: number): [number, number] {
  if (offsets.length < 2) return [0, 0]
  return [rowAt(offsets, Math.max(0, top)), rowAt(offsets, Math.max(0, bottom)) + 1]
}
