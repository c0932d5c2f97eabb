/** Find links in a text: http, https, mailto, tel; e-mail addresses; telephone numbers that begin with "+". */

export interface TextPart {
  text: string
  /** The link's target; undefined for plain text. */
  href: string | undefined
}

const ADDRESS =
  /\bhttps?:\/\/[^\s<>"]+|\bmailto:[^\s<>"]+|\btel:\+?[\d().-]*\d|[\p{L}\p{N}._%+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)*\.\p{L}{2,}|(?<![\p{L}\p{N}])\+\d(?:[ ().-]{0,2}\d){6,14}(?!\d)/giu
const SCHEMES = new Set(['http:', 'https:', 'mailto:', 'tel:'])
const PAIRS: Record<string, string> = { ')': '(', ']': '[', '}': '{' }

export function splitLinks(text: string): TextPart[] {
  const parts: TextPart[] = []
  let end = 0
  for (const match of text.matchAll(ADDRESS)) {
    const address = trimPunctuation(match[0])
    const href = hrefOf(address)
    if (href === undefined) continue
    if (match.index > end) parts.push({ text: text.slice(end, match.index), href: undefined })
    parts.push({ text: address, href })
    end = match.index + address.length
  }
  if (end < text.length || !parts.length) parts.push({ text: text.slice(end), href: undefined })
  return parts
}

function hrefOf(address: string): string | undefined {
  const url = address.startsWith('+') ? `tel:${address.replace(/[^+\d]/g, '')}` : /^(https?|mailto|tel):/i.test(address) ? address : `mailto:${address}`
  try {
    return SCHEMES.has(new URL(url).protocol) ? url : undefined
  } catch {
    return undefined
  }
}

/** Remove the punctuation of the sentence, and an unpaired closing bracket, from the end of an address. */
function trimPunctuation(address: string): string {
  for (let end = address.length; end > 0; end -= 1) {
    const last = address[end - 1]!
    const opening = PAIRS[last]
    const candidate = address.slice(0, end)
    const unpaired = opening !== undefined && candidate.split(last).length > candidate.split(opening).length
    if (!/[.,;:!?'’”»…*_~]/u.test(last) && !unpaired) return candidate
  }
  return address
}
