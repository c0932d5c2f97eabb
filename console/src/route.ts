/**
 * Routes in the URL's fragment, which no server sees: `#s=ID` opens a conversation, `#s=ID&seq=N` at that message;
 * `#search`, `#live`, `#reports`, `#health` and `#settings` are the other views. The words of a search are never in it;
 * `#reports?…` has what is asked of the reports.
 */

export type Route =
  | { view: 'desk'; session: string | undefined; seq: number | undefined }
  | { view: 'search' | 'live' | 'health' | 'settings' }
  | { view: 'reports'; parameters: string }

const SESSION = /^#s=([0-9a-f-]{36})(?:&seq=(\d{1,15}))?$/
const REPORTS = /^#reports(?:\?(.*))?$/
const VIEWS = ['search', 'live', 'health', 'settings'] as const

export function currentRoute(): Route {
  const view = VIEWS.find((name) => location.hash === `#${name}`)
  if (view) return { view }
  const reports = REPORTS.exec(location.hash)
  if (reports) return { view: 'reports', parameters: reports[1] ?? '' }
  const [, session, seq] = SESSION.exec(location.hash) ?? []
  return { view: 'desk', session, seq: seq === undefined ? undefined : Number(seq) }
}

export const SEARCH_HREF = '#search'

/** True if the fragment carries a token or an error of a sign-in, and so is no route. */
export function isSignIn(hash: string): boolean {
  return /[#&](access_token|token|error_description)=/.test(hash)
}

/** The address of a conversation, at a message if `seq` is given. */
export function sessionHref(id: string, seq?: number): string {
  return seq === undefined ? `#s=${id}` : `#s=${id}&seq=${seq}`
}

/** Go to a fragment; with `replace` no history entry is added. */
export function navigate(hash: string, replace = false): void {
  if (replace) location.replace(hash || '#')
  else location.hash = hash
}
