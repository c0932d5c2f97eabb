/** Strings in the browser's storage. If the browser refuses storage, they are kept in memory until the page closes. */

const fallback = new Map<string, string>()

function webStorage(persistent: boolean): Storage | undefined {
  try {
    return persistent ? localStorage : sessionStorage
  } catch {
    return undefined
  }
}

/** Store a string (null deletes it): in localStorage if `persistent`, else in this tab's sessionStorage. */
export function setItem(name: string, value: string | null, persistent = false): void {
  try {
    if (value === null) webStorage(persistent)?.removeItem(name)
    else webStorage(persistent)?.setItem(name, value)
  } catch {
    // Storage is full or forbidden: `fallback` has the value, and an older stored value must not be read instead.
    try {
      webStorage(persistent)?.removeItem(name)
    } catch {
      // Storage is forbidden.
    }
  }
  if (value === null) fallback.delete(name)
  else fallback.set(name, value)
}

export function getItem(name: string, persistent = false): string | null {
  try {
    return webStorage(persistent)?.getItem(name) ?? fallback.get(name) ?? null
  } catch {
    return fallback.get(name) ?? null
  }
}

/** The names in this tab's storage that begin with `prefix`. */
export function itemNames(prefix: string): string[] {
  const names = new Set(fallback.keys())
  try {
    for (const name of Object.keys(sessionStorage)) names.add(name)
  } catch {
    // Storage is forbidden.
  }
  return [...names].filter((name) => name.startsWith(prefix))
}

/** Parse JSON; return undefined for null and for invalid JSON. */
export function parseJson<T>(text: string | null): T | undefined {
  try {
    return text === null ? undefined : (JSON.parse(text) as T)
  } catch {
    return undefined
  }
}
