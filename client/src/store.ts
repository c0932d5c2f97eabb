/** Who listens, and the snapshots that they read: each is the same object until something in it changes. */

export interface Store {
  /** Something changed: listeners are called once, in a microtask. */
  changed(): void
  subscribe(listener: () => void): () => void
  /** The snapshot with this name; `compute` is called at most once after each change. */
  read<T extends object>(name: string, compute: () => T): T
}

/** `onUse` is called with true before the first listener is added, and with false after the last one has left. */
export function createStore(onUse: (used: boolean) => void): Store {
  const listeners = new Set<() => void>()
  const snapshots = new Map<string, { version: number; value: object }>()
  let version = 0
  let notified = true

  const notify = (): void => {
    notified = true
    // Each in a microtask of its own: one that fails does not keep the others from being called.
    for (const listener of listeners) queueMicrotask(() => listeners.has(listener) && listener())
  }

  return {
    changed() {
      version += 1
      if (notified) queueMicrotask(notify)
      notified = false
    },
    subscribe(listener) {
      // A function of its own: one that subscribes twice is called twice, and leaves once each time.
      const own = (): void => listener()
      if (!listeners.size) onUse(true)
      listeners.add(own)
      return () => {
        if (listeners.delete(own) && !listeners.size) onUse(false)
      }
    },
    read<T extends object>(name: string, compute: () => T): T {
      const known = snapshots.get(name)
      if (known?.version === version) return known.value as T
      const value = keep(known?.value as T | undefined, compute())
      snapshots.set(name, { version, value })
      return value as T
    },
  }
}

/** The known value if a fresh one has the same content, one level deep. */
export function keep<T extends object>(known: T | undefined, fresh: T): T {
  const entries = Object.entries(fresh)
  const same = known && entries.length === Object.keys(known).length && entries.every(([name, value]) => (known as Record<string, unknown>)[name] === value)
  return same ? known : fresh
}
