/** Who listens, and the snapshots that they read: each is the same object until something in it changes. */

export interface Store {
  /** Something changed: listeners are called once, in a microtask. */
  changed(): void
  subscribe(listener: () => void): () => void
  /** The snapshot with this name; `compute` is called at most once after each change. */
  read<T>(name: string, compute: () => T): T
}

/** `onUse` is called with true before the first listener is added, and with false after the last one has left. */
export function createStore(onUse: (used: boolean) => void): Store {
  const listeners = new Set<() => void>()
  const snapshots = new Map<string, { version: number; value: unknown }>()
  let version = 0
  let notified = true

  const notify = (): void => {
    notified = true
    for (const listener of [...listeners]) {
      try {
        listener()
      } catch (error) {
        // The others are called all the same; the page's error handler learns of it.
        setTimeout(() => {
          throw error
        })
      }
    }
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
    read<T>(name: string, compute: () => T): T {
      const known = snapshots.get(name)
      if (known?.version === version) return known.value as T
      const value = keep(known?.value, compute())
      snapshots.set(name, { version, value })
      return value as T
    },
  }
}

/** The known value if a fresh one has the same content, one level deep. */
export function keep(known: unknown, fresh: unknown): unknown {
  if (known === null || fresh === null || typeof known !== 'object' || typeof fresh !== 'object') return fresh
  const keys = Object.keys(fresh)
  const same =
    keys.length === Object.keys(known).length &&
    keys.every((key) => (known as Record<string, unknown>)[key] === (fresh as Record<string, unknown>)[key])
  return same ? known : fresh
}
