/** The text of a message that a search has found: the part around the first word, and the words marked. Pure functions. */

export interface MarkedPart {
  text: string
  marked: boolean
}

/** Characters of a text that are shown, and of those before the first word that was found. */
const SHOWN = 320
const SHOWN_BEFORE = 90
/** Characters within which a cut is moved to a space. */
const CUT_MARGIN = 20

/** Split a text at the words of a search, in either case. The parts together are the text. */
export function markWords(text: string, query: string): MarkedPart[] {
  const pattern = wordPattern(query)
  if (!pattern) return [{ text, marked: false }]
  // A split with a capturing group: every second part is a word.
  return text
    .split(pattern)
    .map((part, n) => ({ text: part, marked: n % 2 === 1 }))
    .filter((part) => part.text !== '')
}

/** Cut a long text to the part around the first word of a search; an ellipsis stands for what is left out. */
export function excerptOf(text: string, query: string): string {
  if (text.length <= SHOWN) return text
  const pattern = wordPattern(query)
  const found = Math.max(0, pattern ? text.search(pattern) : 0)
  const start = cutBefore(text, Math.min(found - SHOWN_BEFORE, text.length - SHOWN))
  const end = start + SHOWN
  if (end >= text.length) return `… ${text.slice(start)}`
  const space = text.lastIndexOf(' ', end)
  const cut = text.slice(start, space > end - CUT_MARGIN ? space : characterStart(text, end))
  return `${start ? '… ' : ''}${cut} …`
}

/** The place of a cut at or after `at`: after a space if one is near. */
function cutBefore(text: string, at: number): number {
  if (at <= 0) return 0
  const space = text.indexOf(' ', at)
  return space >= 0 && space < at + CUT_MARGIN ? space + 1 : characterStart(text, at)
}

/** `at`, or the place before it if that is inside of a character of two units. */
function characterStart(text: string, at: number): number {
  return /[\uDC00-\uDFFF]/.test(text.charAt(at)) ? at - 1 : at
}

/** A pattern that captures each word of a search; undefined without a word. The longest first: one may begin with another. */
function wordPattern(query: string): RegExp | undefined {
  const words = query.split(/\s+/).filter(Boolean).sort((a, b) => b.length - a.length)
  if (!words.length) return undefined
  return new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')).join('|')})`, 'iu')
}
