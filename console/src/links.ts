/** Where the addresses in a text are: http, https, mailto, tel; a bare mail address; a number that begins with "+". */

export interface Part {
  text: string
  /** Where it leads; undefined for what is only text. */
  href: string | undefined
}

const ADDRESS =
  /\bhttps?:\/\/[^\s<>"]+|\bmailto:[^\s<>"]+|\btel:\+?[\d().-]*\d|[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.\p{L}{2,}|(?<![\p{L}\p{N}])\+\d(?:[ ().-]{0,2}\d){6,14}(?!\d)/giu
const SCHEMES = new Set(['http:', 'https:', 'mailto:', 'tel:'])
const PAIRS: Record<string, string> = { ')': '(', ']': '[', '}': '{' }

export function parts(text: string): Part[] {
  const found: Part[] = []
  let at = 0
  for (const match of text.matchAll(ADDRESS)) {
    const shown = trimmed(match[0])
    const href = hrefOf(shown)
    if (href === undefined) continue
    if (match.index > at) found.push({ text: text.slice(at, match.index), href: undefined })
    found.push({ text: shown, href })
    at = match.index + shown.length
  }
  if (at < text.length || !found.length) found.push({ text: text.slice(at), href: undefined })
  return found
}

function hrefOf(shown: string): string | undefined {
  const address = shown.startsWith('+') ? `tel:${shown.replace(/[^+\d]/g, '')}` : /^(https?|mailto|tel):/i.test(shown) ? shown : `mailto:${shown}`
  try {
    return SCHEMES.has(new URL(address).protocol) ? address : undefined
  } catch {
    return undefined
  }
}

/** An address without the punctuation of the sentence that it ends. */
function trimmed(address: string): string {
  for (let end = address.length; end > 0; end -= 1) {
    const last = address[end - 1]!
    const opening = PAIRS[last]
    const whole = address.slice(0, end)
    const unpaired = opening !== undefined && whole.split(last).length > whole.split(opening).length
    if (!/[.,;:!?'’”»…*_~]/u.test(last) && !unpaired) return whole
  }
  return address
}
