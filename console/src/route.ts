/** What the address says is open: `#s=ID` a conversation, `#health` the health view. A fragment reaches no server. */

export type Route = { view: 'desk'; session: string | undefined } | { view: 'health' }

const SESSION = /^#s=([0-9a-f-]{36})$/

export function route(): Route {
  if (location.hash === '#health') return { view: 'health' }
  return { view: 'desk', session: SESSION.exec(location.hash)?.[1] }
}

/** Whether the address carries a sign-in, which is nothing to show. */
export function isSignIn(hash: string): boolean {
  return /[#&](access_token|token|error_description)=/.test(hash)
}

export function sessionHref(id: string): string {
  return `#s=${id}`
}

/** Go there; `replacing` leaves no step behind for the back button. */
export function go(hash: string, replacing = false): void {
  if (replacing) location.replace(hash || '#')
  else location.hash = hash
}
