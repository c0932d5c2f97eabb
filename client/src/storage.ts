/** Where unsent texts are kept: one name for each text, so that two tabs of one person do not overwrite each other's. */

import type { ChatStorage } from './api.js'

/** Storage in memory, for what the browser does not keep. */
export function memoryStorage(): ChatStorage {
  const items = new Map<string, string>()
  return {
    get length() {
      return items.size
    },
    key: (index) => [...items.keys()][index] ?? null,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  }
}

/** localStorage, or memory where there is none or the browser forbids it. */
export function defaultStorage(): ChatStorage {
  try {
    return globalThis.localStorage ?? memoryStorage()
  } catch {
    return memoryStorage()
  }
}

/** The names in `storage` that begin with `prefix`. */
export function namesOf(storage: ChatStorage, prefix: string): string[] {
  try {
    return Array.from({ length: storage.length }, (_, index) => storage.key(index) ?? '').filter((name) => name.startsWith(prefix))
  } catch {
    return []
  }
}
