/** Routes in the URL's fragment, which no server sees: `#s=ID` opens a conversation, `#health` and `#settings` those views. */

export type Route = { view: 'desk'; session: string | undefined } | { view: 'health' | 'settings' }

const SESSION = /^#s=([0-9a-f-]{36})$/

export function currentRoute(): Route {
  if (location.hash === '#health') return { view: 'health' }
  if (location.hash === '#settings') return { view: 'settings' }
  return { view: 'desk', session: SESSION.exec(location.hash)?.[1] }
}

/** True if the fragment carries a token or an error of a sign-in, and so is no route. */
export function isSignIn(hash: string): boolean {
  return /[#&](access_token|token|error_description)=/.test(hash)
}

export function sessionHref(id: string): string {
  return `#s=${id}`
}

/** Go to a fragment; with `replace` no history entry is added. */
export function navigate(hash: string, replace = false): void {
  if (replace) location.replace(hash || '#')
  else location.hash = hash
}
