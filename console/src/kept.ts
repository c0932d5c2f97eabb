/** Small things kept in the browser. A browser may refuse storage; then they last as long as the page. */

const lost = new Map<string, string>()

function storage(lasting: boolean): Storage | undefined {
  try {
    return lasting ? localStorage : sessionStorage
  } catch {
    return undefined
  }
}

/** Preferences last (`lasting`); what belongs to one signed-in tab does not. */
export function keep(name: string, value: string | null, lasting = false): void {
  try {
    if (value === null) storage(lasting)?.removeItem(name)
    else storage(lasting)?.setItem(name, value)
  } catch {
    // Full or forbidden: the copy below has to do.
  }
  if (value === null) lost.delete(name)
  else lost.set(name, value)
}

export function kept(name: string, lasting = false): string | null {
  try {
    return storage(lasting)?.getItem(name) ?? lost.get(name) ?? null
  } catch {
    return lost.get(name) ?? null
  }
}

/** Forget everything of the tab whose name begins so. */
export function forget(prefix: string): void {
  const names = new Set(lost.keys())
  try {
    for (const name of Object.keys(sessionStorage)) names.add(name)
  } catch {
    // Nothing is kept there.
  }
  for (const name of names) if (name.startsWith(prefix)) keep(name, null)
}
