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
    // Full or forbidden: the copy below has to do, and an older value must not come back in its place.
    try {
      storage(lasting)?.removeItem(name)
    } catch {
      // Nothing is kept there.
    }
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

/** The names of everything that the tab keeps and whose name begins so. */
export function keptNames(prefix: string): string[] {
  const names = new Set(lost.keys())
  try {
    for (const name of Object.keys(sessionStorage)) names.add(name)
  } catch {
    // Nothing is kept there.
  }
  return [...names].filter((name) => name.startsWith(prefix))
}

/** The value of a JSON text; undefined if it is none. */
export function parsed<T>(text: string | null): T | undefined {
  try {
    return text === null ? undefined : (JSON.parse(text) as T)
  } catch {
    return undefined
  }
}
